"""One anatomical chest phantom: an image in HU and its label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms import tissue
from common.data.phantoms.airways import lobar_bronchi
from common.data.phantoms.anatomy import Anatomy, draw_anatomy
from common.data.phantoms.contrast import Enhancement, enhanced, native
from common.data.phantoms.fields import SmoothNoise, coverage, draw_noise, smooth_noise
from common.data.phantoms.grid import Array, Grid, Points, Vector, patient_points
from common.data.phantoms.heart import Heart, build_heart
from common.data.phantoms.lesions import LesionFields, build_lesions, draw_lesions
from common.data.phantoms.nodules import NoduleFields, build_nodules, draw_nodules
from common.data.phantoms.places import Places, draw_candidates, keep_inside
from common.data.phantoms.scanner import scan
from common.data.phantoms.thorax import Thorax, body_back, build_thorax
from common.data.phantoms.vessels import Branches, grow_tree, paint_branches
from common.errors import UserError
from common.random import generator

SHAPE = (128, 128, 24)
SMALLEST = 8
"""Fewest voxels along an axis."""
SLAB = 4.0
"""Thickness of a slice in mm; slices further apart leave a gap, as in many clinical series."""
BRONCHUS_HU = -950.0
TREES = ((-34.0, 8.0, 150.0), (-36.0, 22.0, 126.0), (38.0, 14.0, 154.0), (38.0, 24.0, 124.0))
"""Where artery and vein enter the right, then the left lung; patient mm."""
TREE_ENDS = 420
HEART_BUMPS, BODY_BUMPS = 22.0, 40.0
"""Size in mm of the irregularities of their borders."""
PLACES = 9000
"""Points drawn around the lungs; about a quarter lies inside."""


@dataclass(frozen=True)
class Phantom:
    """A made patient.

    All arrays have one shape; axis 0 runs to the patient's left, axis 1 to the back, axis 2 to the head
    (nibabel's axis codes ``LPS``, which ``affine`` states).

    Attributes:
        image: int16 HU.
        labels: uint16 maps. ``lung``: 1 right, 2 left (vessels, lesions and nodules within included);
            ``lesion``: 1 ground glass, 2 consolidation; ``nodule``: 1 solid, 2 part-solid, 3 spiculated;
            ``heart``: MM-WHS values 205, 420, 500, 550, 600, 820, 850.
        native: the same patient without contrast agent, int16 HU with a scanner noise of its own;
            None where it was not asked for.
        spacing: voxel size in mm.
        affine: (4, 4) voxel index to RAS world in mm.
        anatomy: the parameters drawn for this patient.
    """

    image: NDArray[np.int16]
    labels: dict[str, NDArray[np.uint16]]
    spacing: Vector
    affine: NDArray[np.float64]
    anatomy: Anatomy
    native: NDArray[np.int16] | None = None


def make_phantom(
    seed: int,
    patient: int,
    shape: Sequence[int] = SHAPE,
    with_lesions: bool = True,
    with_nodules: bool = True,
    contrasts: bool = False,
) -> Phantom:
    """Makes a patient's phantom; the same arguments give the same bytes.

    The patient's anatomy depends on ``seed`` and ``patient`` only: another ``shape`` samples the same
    body (360 x 360 x 240 mm) at another voxel size.

    Args:
        seed: of the whole set.
        patient: number of the patient in the set.
        shape: voxels (left-right, front-back, foot-head), at least 8 each.
        with_lesions: paint COVID-like lesions (some patients have none anyway).
        with_nodules: paint nodules.
        contrasts: also scan the patient without contrast agent (``native``).

    Raises:
        UserError: ``shape`` is not three numbers of at least 8.
    """
    body = _build_body(seed, patient, Grid(_checked(shape)))
    inside = body.thorax.lung < 0
    lesions = _lesions(body, with_lesions)
    lesion_labels = lesions.labels(inside)
    nodules = _nodules(body, with_nodules, inside & (lesion_labels == 0))
    labels = {
        "lung": np.where(inside, np.where(body.points[0] < 0, 1, 2), 0).astype(np.uint16),
        "lesion": lesion_labels,
        "nodule": nodules.labels,
        "heart": body.heart.labels,
    }
    painted = partial(_scanned, body, lesions, nodules, paint_branches(body.grid, _branches(body), SLAB))
    plain = painted(native(body.random("native")), "native noise") if contrasts else None
    image = painted(enhanced(body.anatomy), "noise")
    affine = body.grid.affine(body.anatomy.offset)
    return Phantom(image, labels, body.grid.spacing, affine, body.anatomy, plain)


def _scanned(
    body: _Body,
    lesions: LesionFields,
    nodules: NoduleFields,
    vessels: Array,
    enhancement: Enhancement,
    noise: str,
) -> NDArray[np.int16]:
    """One scan of the patient; ``noise`` names the random numbers of the scanner's noise."""
    ideal = _ideal(body, enhancement)
    _fill_lungs(ideal, body, lesions, nodules, vessels, enhancement.lung_vessels)
    return scan(body.random(noise), ideal, body.thorax.body, body.anatomy, body.grid)


def _checked(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or any(int(n) != n or n < SMALLEST for n in shape):
        raise UserError(f"phantom shape {tuple(shape)}: give three whole numbers of at least {SMALLEST}")
    return int(shape[0]), int(shape[1]), int(shape[2])


@dataclass(frozen=True)
class _Body:
    """A patient's shapes on a grid, before anything has a density."""

    random: Callable[[str], np.random.Generator]  # by purpose
    anatomy: Anatomy
    grid: Grid
    points: Points
    heart: Heart
    thorax: Thorax
    places: Places
    texture: Array

    @property
    def width(self) -> float:
        """Size of a voxel in the slice, mm."""
        return float(min(self.grid.spacing[:2]))


def _build_body(seed: int, patient: int, grid: Grid) -> _Body:
    random = partial(generator, seed, "phantom", patient)
    anatomy = draw_anatomy(seed, patient)
    points = patient_points(grid, anatomy.pose)
    uneven = draw_noise(random("heart"), HEART_BUMPS), draw_noise(random("wobble"), BODY_BUMPS)
    heart = build_heart(points, anatomy, uneven[0].on(grid))
    thorax = build_thorax(points, anatomy, heart, uneven[1].on(grid))
    places = _places(random("places"), anatomy, uneven)
    texture = smooth_noise(random("texture"), grid, 9)
    return _Body(random, anatomy, grid, points, heart, thorax, places, texture)


def _places(random: np.random.Generator, anatomy: Anatomy, uneven: tuple[SmoothNoise, SmoothNoise]) -> Places:
    """Points inside the lungs, found on the shapes themselves: the same at any voxel size."""
    candidates = draw_candidates(random, PLACES)
    x, y, z = candidates.T.astype(np.float32)
    on_grid = anatomy.pose.to_grid(candidates)
    heart = build_heart((x, y, z), anatomy, uneven[0].at(on_grid))
    return keep_inside(candidates, build_thorax((x, y, z), anatomy, heart, uneven[1].at(on_grid)))


def _lesions(body: _Body, wanted: bool) -> LesionFields:
    drawn = draw_lesions(body.random("lesions"), body.anatomy, body.places) if wanted else []
    return build_lesions(body.random("lesion texture"), drawn, body.grid, body.anatomy.pose, body.points)


def _nodules(body: _Body, wanted: bool, free: NDArray[np.bool_]) -> NoduleFields:
    drawn = draw_nodules(body.random("nodules"), body.anatomy.nodules, body.places) if wanted else []
    return build_nodules(drawn, body.grid, body.anatomy.pose, body.points, free)


def _branches(body: _Body) -> Branches:
    """Arteries and veins of both lungs in grid mm. Even places feed arteries, odd ones veins."""
    places, pose = body.places, body.anatomy.pose
    trees = []
    for number, root in enumerate(TREES):
        own = places.patient[(places.patient[:, 0] * root[0] > 0) & (places.depth > 3)]
        trees.append(grow_tree(np.array(root), own[number % 2 :: 2][:TREE_ENDS]))
    starts = np.concatenate([tree.starts for tree in trees])
    ends = np.concatenate([tree.ends for tree in trees])
    return Branches(pose.to_grid(starts), pose.to_grid(ends), np.concatenate([tree.radii for tree in trees]))


def _ideal(body: _Body, enhancement: Enhancement) -> Array:
    """Densities in HU of everything but the lungs' inside."""
    points, anatomy, thorax, width = body.points, body.anatomy, body.thorax, body.width
    image = tissue.soft_tissue(points, thorax, enhancement, body.texture, width)
    tissue.bones(image, points, anatomy, thorax, body.texture, width)
    tissue.middle(image, points, enhancement, body.heart, width)
    back = float(anatomy.pose.to_grid(np.array([[0.0, body_back(anatomy), 120.0]]))[0, 1])
    x, y = body.grid.axis(0)[:, None, None], body.grid.axis(1)[None, :, None]
    tissue.table(image, x, y, back, thorax, width)
    return image


def _fill_lungs(
    image: Array,
    body: _Body,
    lesions: LesionFields,
    nodules: NoduleFields,
    vessels: Array,
    vessel_hu: float,
) -> None:
    """Paints air, lesions, vessels, bronchi and nodules into the lungs, in place."""
    anatomy, width = body.anatomy, body.width
    slope = np.float32(anatomy.lung_gradient / 180)
    content = anatomy.lung_hu + slope * body.points[1] + 14 * body.texture
    tissue.paint(content, lesions.opacity, lesions.ground_glass_hu)
    tissue.paint(content, lesions.core, lesions.consolidation_hu)
    tissue.paint(content, vessels, vessel_hu)
    bronchi = lobar_bronchi(body.points)
    tissue.paint(content, 0.6 * coverage(bronchi - 1, width), -150.0)
    tissue.paint(content, coverage(bronchi, width), BRONCHUS_HU)
    tissue.paint(content, nodules.share, nodules.hu)
    tissue.paint(image, coverage(body.thorax.lung, width), content)
