"""Lung nodules: solid, part-solid and spiculated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.anatomy import Array, Grid, Points, Pose
from common.data.phantoms.lesions import LungPoints, box_around, choose_weighted, points_around
from common.data.phantoms.shapes import capsule, union

SOLID, PART_SOLID, SPICULATED = 1, 2, 3
"""Label values."""
RADII = (3.5, 13.0)
"""Smallest and largest radius in mm."""


@dataclass(frozen=True)
class Nodule:
    """One nodule of a phantom; ``centre`` (3,) and lengths in patient mm."""

    kind: int
    centre: NDArray[np.float64]
    radius: float
    stretch: NDArray[np.float64]  # (3,) radii relative to ``radius``
    spikes: NDArray[np.float64]  # (S, 3) tips relative to the centre, in radii; none unless spiculated
    waves: NDArray[np.float64]  # (4, 4) direction and phase of the bumps on the surface
    solid_hu: float
    halo_hu: float


def draw_nodules(random: np.random.Generator, count: int, places: LungPoints) -> list[Nodule]:
    """Draws at most ``count`` nodules wholly inside the lung; kinds alternate from a random first one."""
    first = int(random.integers(3))
    chosen: list[Nodule] = []
    for number in range(count):
        radius = float(np.clip(random.lognormal(1.95, 0.4), *RADII))
        apart = np.ones(len(places.patient))
        for other in chosen:
            apart *= np.linalg.norm(places.patient - other.centre, axis=1) > 2.5 * (radius + other.radius)
        weights = (places.depth > 1.3 * radius) * apart
        index = choose_weighted(random, weights.astype(float), 1)
        nodule = _draw(
            random, (first + number) % 3 + 1, places.patient[index[0]] if len(index) else None, radius
        )
        if nodule is not None and weights[index[0]] > 0:
            chosen.append(nodule)
    return chosen


def _draw(
    random: np.random.Generator, kind: int, centre: NDArray[np.float64] | None, radius: float
) -> Nodule | None:
    stretch = random.uniform(0.8, 1.15, 3)
    waves = np.concatenate([random.normal(0, 2.2, (4, 3)), random.uniform(0, 2 * np.pi, (4, 1))], axis=1)
    spikes = random.standard_normal((int(random.integers(9, 15)), 3))
    spikes *= random.uniform(1.5, 2.1, (len(spikes), 1)) / np.linalg.norm(spikes, axis=1, keepdims=True)
    solid, halo = float(random.uniform(0, 70)), float(random.uniform(-650, -520))
    if centre is None:
        return None
    kept = spikes if kind == SPICULATED else spikes[:0]
    return Nodule(kind, centre, radius, stretch, kept, waves, solid, halo)


@dataclass(frozen=True)
class NoduleFields:
    """The share 0 to 1 of each voxel that is nodule, its density in HU and the label map."""

    share: Array
    hu: Array
    labels: NDArray[np.uint16]


def paint_nodules(
    nodules: list[Nodule], grid: Grid, pose: Pose, points: Points, lung: NDArray[np.bool_]
) -> NoduleFields:
    """Paints the nodules on the grid, inside ``lung`` only."""
    share = np.zeros(grid.shape, np.float32, order="F")
    hu, labels = np.zeros_like(share), np.zeros_like(share, np.uint16)
    width = float(min(grid.spacing[:2]))
    for nodule in nodules:
        box = box_around(grid, pose, nodule.centre, 2.2 * nodule.radius + 2 * width)
        near = points_around(points, nodule.centre, box)
        shape = _shape(nodule, near)
        own = np.clip(0.5 - shape / width, 0, 1) * lung[box]
        hu[box] = np.where(own > 0, _density(nodule, shape), hu[box])
        share[box] = np.maximum(share[box], own)
        labels[box][own > 0.5] = nodule.kind
    return NoduleFields(share, hu, labels)


def _shape(nodule: Nodule, near: Points) -> Array:
    """Returns the signed distance in mm to an ellipsoid with a bumpy surface, with spikes if it has any."""
    scaled = [p / np.float32(nodule.radius * s) for p, s in zip(near, nodule.stretch, strict=True)]
    bumps = sum(
        (
            np.sin(sum(w * p for w, p in zip(wave[:3], scaled, strict=True)) + wave[3])
            for wave in nodule.waves
        ),
        0.0,
    )
    level = np.sqrt(sum((p**2 for p in scaled), np.float32(0))) - 0.06 * np.asarray(bumps)
    ball = np.asarray((level - 1) * nodule.radius, dtype=np.float32)
    tips = [(float(a), float(b), float(c)) for a, b, c in nodule.spikes * nodule.radius]
    thick = (0.28 * nodule.radius, 0.06 * nodule.radius)
    return union(ball, *(capsule(near, (0, 0, 0), tip, thick) for tip in tips))


def _density(nodule: Nodule, shape: Array) -> Array:
    if nodule.kind != PART_SOLID:
        return np.full(shape.shape, nodule.solid_hu, np.float32)
    core = np.clip((-shape - np.float32(0.42 * nodule.radius)) / np.float32(0.2 * nodule.radius), 0, 1)
    return np.asarray(nodule.halo_hu + core * (nodule.solid_hu - nodule.halo_hu), dtype=np.float32)
