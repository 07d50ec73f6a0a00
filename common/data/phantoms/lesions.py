"""COVID-like lesions, mostly at the back, below and near the chest wall, and lung nodules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.anatomy import (
    FIELD_OF_VIEW,
    Anatomy,
    Array,
    Grid,
    Points,
    Pose,
    capsule,
    smooth_noise,
    union,
)
from common.data.phantoms.chest import Thorax

LOW, HIGH = np.array([-140.0, -100.0, 0.0]), np.array([140.0, 110.0, FIELD_OF_VIEW[2]])


@dataclass(frozen=True)
class LungPoints:
    """Points inside the lungs with their distances; all arrays have N rows."""

    patient: NDArray[np.float64]  # (N, 3) mm in the standard body
    depth: NDArray[np.float64]  # (N,) mm to the lung's border
    wall: NDArray[np.float64]  # (N,) mm to the chest wall or the diaphragm


def draw_points(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draws points (count, 3) in patient mm, uniform in a box around the lungs."""
    return random.uniform(LOW, HIGH, size=(count, 3))


def keep_inside_lung(candidates: NDArray[np.float64], thorax: Thorax) -> LungPoints:
    """Keeps the points inside the lungs; ``thorax`` was built at these points, arrays (N,)."""
    inside = thorax.lung < 0
    wall = np.maximum(thorax.cavity, thorax.diaphragm)[inside]
    return LungPoints(candidates[inside], -thorax.lung[inside].astype(float), -wall.astype(float))


def choose_weighted(
    random: np.random.Generator, weights: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """Draws ``count`` different indices in proportion to ``weights`` (Efraimidis and Spirakis 2006)."""
    keys = np.log(random.random(len(weights))) / np.maximum(weights, 1e-12)
    return np.argsort(-keys)[:count].astype(np.int64)


def points_around(points: Points, centre: NDArray[np.float64], box: tuple[slice, slice, slice]) -> Points:
    """Returns the coordinates relative to ``centre`` within ``box``."""
    x, y, z = (p[box] - np.float32(c) for p, c in zip(points, centre, strict=True))
    return x, y, z


def box_around(
    grid: Grid, pose: Pose, centre: NDArray[np.float64], reach: float
) -> tuple[slice, slice, slice]:
    """Returns the part of the grid within ``reach`` mm of a point in patient mm; it may be empty."""
    middle = pose.to_grid(centre[None])[0]
    parts = []
    for number in range(3):
        first, last = np.searchsorted(grid.axis(number), [middle[number] - reach, middle[number] + reach])
        parts.append(slice(int(first), int(last)))
    return parts[0], parts[1], parts[2]


GROUND_GLASS, CONSOLIDATION = 1, 2
"""Label values, as in the class maps of COVID-SemiSeg."""
GROUND_GLASS_HU = (-680.0, -470.0)
CONSOLIDATION_HU = (-90.0, 40.0)
MOST_LESIONS = 16


@dataclass(frozen=True)
class Lesion:
    """A lesion as a cluster of ellipsoids; ``centres`` (B, 3) and ``radii`` (B, 3) in patient mm."""

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]
    core: float
    """Level (0 border, 1 centre) above which the lesion is consolidated; nowhere where this is above 1."""
    ground_glass_hu: float
    consolidation_hu: float


def draw_lesions(random: np.random.Generator, anatomy: Anatomy, places: LungPoints) -> list[Lesion]:
    """Draws the lesions of a patient; none where the load is 0."""
    load = anatomy.lesion_load
    count = round(MOST_LESIONS * load) if load > 0 else 0
    _, y, z = places.patient.T
    near_wall = np.exp(-np.maximum(places.wall, 0) / 14)
    behind, below = 1 / (1 + np.exp(-(y - 15) / 16)), 1 / (1 + np.exp((z - 130) / 32))
    weights = (near_wall + 0.04) * (behind + 0.12) * (below + 0.15)
    return [
        _draw_lesion(random, anatomy, places.patient[index])
        for index in choose_weighted(random, weights, max(count, load > 0))
    ]


def _draw_lesion(random: np.random.Generator, anatomy: Anatomy, centre: NDArray[np.float64]) -> Lesion:
    size = float(np.clip(random.lognormal(2.35 + 0.7 * anatomy.lesion_load, 0.45), 6, 42))
    blobs = int(random.integers(2, 6))
    shift = random.normal(0, 0.5 * size, (blobs, 3)) * (blobs > 1)
    shift[0] = 0
    radii = size * random.uniform(0.5, 1.0, (blobs, 3))
    core = random.uniform(0.25, 0.9) if random.random() < 0.25 + 0.65 * anatomy.consolidation else 2.0
    return Lesion(
        centre + shift,
        radii,
        float(core),
        float(random.uniform(*GROUND_GLASS_HU)),
        float(random.uniform(*CONSOLIDATION_HU)),
    )


@dataclass(frozen=True)
class LesionFields:
    """Shares 0 to 1 of voxels that are lesion (``opacity``) and consolidated (``core``); densities in HU."""

    opacity: Array
    core: Array
    ground_glass_hu: Array
    consolidation_hu: Array

    def labels(self, lung: NDArray[np.bool_]) -> NDArray[np.uint16]:
        """Returns the label map: 0, 1 (ground glass) or 2 (consolidation), inside ``lung`` only."""
        result = np.where(self.opacity > 0.5, GROUND_GLASS, 0)
        result[(self.core > 0.5) & (result > 0)] = CONSOLIDATION
        return (result * lung).astype(np.uint16)


def paint_lesions(
    random: np.random.Generator, lesions: list[Lesion], grid: Grid, pose: Pose, points: Points
) -> LesionFields:
    """Paints the lesions on the grid, with ragged borders and a patchy inside."""
    level = np.full(grid.shape, -1, np.float32, order="F")
    core = np.full(grid.shape, -1, np.float32, order="F")
    glass = np.full(grid.shape, np.mean(GROUND_GLASS_HU), np.float32, order="F")
    solid = np.full(grid.shape, np.mean(CONSOLIDATION_HU), np.float32, order="F")
    for lesion in lesions:
        for centre, radii in zip(lesion.centres, lesion.radii, strict=True):
            box = box_around(grid, pose, centre, 1.35 * float(radii.max()))
            own = _blob(points_around(points, centre, box), radii)
            stronger = own > level[box]
            glass[box] = np.where(stronger, lesion.ground_glass_hu, glass[box])
            solid[box] = np.where(stronger, lesion.consolidation_hu, solid[box])
            level[box] = np.maximum(level[box], own)
            core[box] = np.maximum(core[box], own - np.float32(lesion.core))
    ragged = 0.20 * smooth_noise(random, grid, 14) + 0.16 * smooth_noise(random, grid, 6)
    net = smooth_noise(random, grid, 5)
    opacity = np.clip((level + ragged * (level > -0.6)) * 4 + np.float32(0.5), 0, 1)
    consolidated = np.clip((core + ragged * (core > -0.6)) * 6 + np.float32(0.5), 0, 1) * opacity
    return LesionFields(opacity, consolidated, glass + 35 * net, solid + 22 * net)


def _blob(points: Points, radii: NDArray[np.float64]) -> Array:
    level = sum(((p / np.float32(r)) ** 2 for p, r in zip(points, radii, strict=True)), np.float32(0))
    return np.asarray(1 - np.sqrt(level), dtype=np.float32)


def lesion_share(labels: NDArray[np.generic]) -> float:
    """Returns the share 0 to 1 of the axial slices (axis 2) of a label map that hold a lesion."""
    return float((np.asarray(labels) > 0).any(axis=(0, 1)).mean())


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
        nodule = _draw_nodule(
            random, (first + number) % 3 + 1, places.patient[index[0]] if len(index) else None, radius
        )
        if nodule is not None and weights[index[0]] > 0:
            chosen.append(nodule)
    return chosen


def _draw_nodule(
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
        shape = _nodule_shape(nodule, near)
        own = np.clip(0.5 - shape / width, 0, 1) * lung[box]
        hu[box] = np.where(own > 0, _nodule_density(nodule, shape), hu[box])
        share[box] = np.maximum(share[box], own)
        labels[box][own > 0.5] = nodule.kind
    return NoduleFields(share, hu, labels)


def _nodule_shape(nodule: Nodule, near: Points) -> Array:
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


def _nodule_density(nodule: Nodule, shape: Array) -> Array:
    if nodule.kind != PART_SOLID:
        return np.full(shape.shape, nodule.solid_hu, np.float32)
    core = np.clip((-shape - np.float32(0.42 * nodule.radius)) / np.float32(0.2 * nodule.radius), 0, 1)
    return np.asarray(nodule.halo_hu + core * (nodule.solid_hu - nodule.halo_hu), dtype=np.float32)
