"""One anatomical chest phantom: an image in HU and its label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms import tissue
from common.data.phantoms.airways import lobar_bronchi
from common.data.phantoms.anatomy import Anatomy, draw_anatomy
from common.data.phantoms.fields import coverage, smooth_noise
from common.data.phantoms.grid import Array, Grid, Points, Vector, patient_points
from common.data.phantoms.heart import Heart, build_heart
from common.data.phantoms.lesions import LesionFields, build_lesions, draw_lesions
from common.data.phantoms.nodules import NoduleFields, build_nodules, draw_nodules
from common.data.phantoms.places import Places, draw_places
from common.data.phantoms.scanner import scan
from common.data.phantoms.thorax import Thorax, build_thorax
from common.data.phantoms.vessels import Branches, grow_tree, paint_branches
from common.errors import UserError
from common.random import generator

SHAPE = (128, 128, 24)
SMALLEST = 8
"""Fewest voxels along an axis."""
SLAB = 4.0
"""Thickness of a slice in mm; slices further apart leave a gap, as in many clinical series."""
VESSEL_HU = 40.0
BRONCHUS_HU = -950.0
TREES = ((-34.0, 8.0, 150.0), (-36.0, 22.0, 126.0), (38.0, 14.0, 154.0), (38.0, 24.0, 124.0))
"""Where artery and vein enter the right, then the left lung; patient mm."""
TREE_ENDS = 420


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
        spacing: voxel size in mm.
        affine: (4, 4) voxel index to RAS world in mm.
        anatomy: the parameters drawn for this patient.
    """

    image: NDArray[np.int16]
    labels: dict[str, NDArray[np.uint16]]
    spacing: Vector
    affine: NDArray[np.float64]
    anatomy: Anatomy


def make_phantom(
    seed: int,
    patient: int,
    shape: Sequence[int] = SHAPE,
    with_lesions: bool = True,
    with_nodules: bool = True,
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

    Raises:
        UserError: ``shape`` is not three numbers of at least 8.
    """
    anatomy = draw_anatomy(seed, patient)
    grid = Grid(_checked(shape))
    points = patient_points(grid, anatomy.pose)
    heart = build_heart(points, anatomy)
    thorax = build_thorax(
        points, anatomy, heart, smooth_noise(generator(seed, "phantom", patient, "wobble"), grid, 40)
    )
    inside = thorax.lung < 0
    places = draw_places(
        generator(seed, "phantom", patient, "places"),
        6000,
        grid,
        anatomy.pose,
        thorax.lung,
        np.maximum(thorax.cavity, thorax.diaphragm),
    )
    lesions = _lesions(seed, patient, anatomy, places if with_lesions else None, grid, points)
    lesion_labels = lesions.labels(inside)
    nodules = _nodules(
        seed, patient, anatomy, places if with_nodules else None, grid, points, inside & (lesion_labels == 0)
    )
    branches = _branches(places, anatomy)
    texture = smooth_noise(generator(seed, "phantom", patient, "texture"), grid, 9)
    ideal = _ideal(points, grid, anatomy, heart, thorax, texture)
    _fill_lungs(ideal, points, grid, anatomy, thorax, texture, lesions, nodules, branches)
    labels = {
        "lung": np.where(inside, np.where(points[0] < 0, 1, 2), 0).astype(np.uint16),
        "lesion": lesion_labels,
        "nodule": nodules.labels,
        "heart": heart.labels,
    }
    image = scan(generator(seed, "phantom", patient, "noise"), ideal, thorax.body, anatomy, grid)
    return Phantom(image, labels, grid.spacing, grid.affine(anatomy.offset), anatomy)


def _checked(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or any(int(n) != n or n < SMALLEST for n in shape):
        raise UserError(f"phantom shape {tuple(shape)}: give three whole numbers of at least {SMALLEST}")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _lesions(
    seed: int, patient: int, anatomy: Anatomy, places: Places | None, grid: Grid, points: Points
) -> LesionFields:
    random = generator(seed, "phantom", patient, "lesions")
    drawn = draw_lesions(random, anatomy, places) if places is not None else []
    return build_lesions(
        generator(seed, "phantom", patient, "lesion texture"), drawn, grid, anatomy.pose, points
    )


def _nodules(
    seed: int,
    patient: int,
    anatomy: Anatomy,
    places: Places | None,
    grid: Grid,
    points: Points,
    free: NDArray[np.bool_],
) -> NoduleFields:
    random = generator(seed, "phantom", patient, "nodules")
    drawn = draw_nodules(random, anatomy.nodules, places) if places is not None else []
    return build_nodules(drawn, grid, anatomy.pose, points, free)


def _branches(places: Places, anatomy: Anatomy) -> Branches:
    """Arteries and veins of both lungs in grid mm. Even places feed arteries, odd ones veins."""
    trees = []
    for number, root in enumerate(TREES):
        side = np.sign(root[0])
        own = places.patient[(places.patient[:, 0] * side > 0) & (places.depth > 3)]
        trees.append(grow_tree(np.array(root), own[number % 2 :: 2][:TREE_ENDS]))
    starts, ends = (np.concatenate([getattr(tree, name) for tree in trees]) for name in ("starts", "ends"))
    radii = np.concatenate([tree.radii for tree in trees])
    return Branches(anatomy.pose.to_grid(starts), anatomy.pose.to_grid(ends), radii)


def _ideal(
    points: Points, grid: Grid, anatomy: Anatomy, heart: Heart, thorax: Thorax, texture: Array
) -> Array:
    """Densities in HU of everything but the lungs' inside."""
    width = min(grid.spacing[:2])
    image = tissue.soft_tissue(points, anatomy, thorax, texture, width)
    tissue.bones(image, points, anatomy, thorax, texture, width)
    tissue.middle(image, points, anatomy, heart, thorax, width)
    tissue.table(image, grid.axis(0)[:, None, None], grid.axis(1)[None, :, None], width)
    return image


def _fill_lungs(
    image: Array,
    points: Points,
    grid: Grid,
    anatomy: Anatomy,
    thorax: Thorax,
    texture: Array,
    lesions: LesionFields,
    nodules: NoduleFields,
    branches: Branches,
) -> None:
    """Paints air, lesions, vessels, bronchi and nodules into the lungs, in place."""
    width = min(grid.spacing[:2])
    content = anatomy.lung_hu + anatomy.lung_gradient * (points[1] / np.float32(180)) + 14 * texture
    tissue.paint(content, lesions.opacity, lesions.ground_glass_hu)
    tissue.paint(content, lesions.core, lesions.consolidation_hu)
    vessel_hu = VESSEL_HU + 0.35 * anatomy.blood_right_hu
    tissue.paint(content, paint_branches(grid, branches, SLAB), vessel_hu)
    bronchi = lobar_bronchi(points)
    tissue.paint(content, 0.6 * coverage(bronchi - 1, width), -150.0)
    tissue.paint(content, coverage(bronchi, width), BRONCHUS_HU)
    tissue.paint(content, nodules.share, nodules.hu)
    tissue.paint(image, coverage(thorax.lung, width), content)
