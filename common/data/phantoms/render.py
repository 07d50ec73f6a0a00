"""An anatomical chest phantom: a CT image in HU and its label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.phantoms import chest as skeleton
from common.data.phantoms.anatomy import (
    Anatomy,
    Array,
    Grid,
    Points,
    SmoothNoise,
    Vector,
    coverage,
    draw_anatomy,
    draw_noise,
    ellipsoid,
    patient_points,
    smooth_noise,
    tube,
    union,
)
from common.data.phantoms.chest import (
    AO,
    HEART_LABELS,
    LA,
    LV,
    MYO,
    PA,
    RA,
    RV,
    Branches,
    Heart,
    Thorax,
    body_back,
    build_heart,
    build_thorax,
    central_airways,
    grow_tree,
    lobar_bronchi,
    paint_branches,
)
from common.data.phantoms.lesions import (
    LesionFields,
    LungPoints,
    NoduleFields,
    draw_lesions,
    draw_nodules,
    draw_points,
    keep_inside_lung,
    paint_lesions,
    paint_nodules,
)
from common.errors import UserError
from common.rng import make_rng

BLOOD_HU = (36.0, 52.0)
"""Range of blood without contrast agent; it depends on the haematocrit."""


@dataclass(frozen=True)
class Densities:
    """Densities in HU of the tissues that take up contrast agent."""

    left_blood: float
    """Left heart, aorta, neck arteries and pulmonary veins."""
    right_blood: float
    right_atrium: float
    """Enhanced and plain blood mix here."""
    great_veins: float
    lung_vessels: float
    """Lower than blood, for the partial volume of thin vessels."""
    myocardium: float
    liver: float
    spleen: float


def enhanced_densities(anatomy: Anatomy) -> Densities:
    """Returns the densities of the patient's CT angiography."""
    left, right = anatomy.blood_left_hu, anatomy.blood_right_hu
    return Densities(
        left_blood=left,
        right_blood=right,
        right_atrium=0.9 * right,
        great_veins=0.85 * right,
        lung_vessels=40.0 + 0.35 * right,
        myocardium=95.0,
        liver=105.0,
        spleen=120.0,
    )


def native_densities(random: np.random.Generator) -> Densities:
    """Draws the densities of a scan without contrast agent; blood and muscle nearly equal."""
    blood = float(random.uniform(*BLOOD_HU))
    return Densities(
        left_blood=blood,
        right_blood=blood,
        right_atrium=blood,
        great_veins=blood,
        lung_vessels=blood,
        myocardium=float(random.uniform(44.0, 50.0)),
        liver=float(random.uniform(52.0, 64.0)),
        spleen=float(random.uniform(44.0, 52.0)),
    )


AIR_HU = -1000.0
FAT_HU = -100.0
MUSCLE_HU = 50.0
TABLE_HU = -250.0
CANAL_HU = 35.0
DISC_HU = 85.0
CARTILAGE_HU = 110.0
MARROW_SHARE = 0.38
"""Density of marrow relative to cortical bone."""


def paint(image: Array, share: Array, hu: float | Array) -> None:
    """Mixes ``hu`` into ``image`` in place by ``share`` 0 to 1."""
    image += share * (hu - image)


def paint_soft_tissue(
    points: Points, thorax: Thorax, densities: Densities, texture: Array, width: float
) -> Array:
    """Paints air, fat, muscles and the organs below the diaphragm; returns HU."""
    image = np.full_like(points[0], AIR_HU)
    paint(image, coverage(thorax.body, width), MUSCLE_HU - 10)  # skin
    paint(image, coverage(thorax.body + np.float32(2.2), width), FAT_HU + 10 * texture)
    paint(
        image, coverage(np.maximum(_muscles(points, thorax), thorax.body + 4), width), MUSCLE_HU + 7 * texture
    )
    paint(image, coverage(thorax.cavity - 1, width), FAT_HU + 14 + 16 * texture)
    belly = np.maximum(thorax.cavity, -thorax.diaphragm + 2)
    for shape, hu in _organs(points, densities):
        paint(image, coverage(np.maximum(shape, belly), width), hu + 6 * texture)
    return image


def _muscles(points: Points, thorax: Thorax) -> Array:
    x, y, z = points
    side = (np.abs(x), y, z)
    wall = np.abs(thorax.cavity - 6) - np.float32(6)
    back = ellipsoid((side[0], y, np.zeros_like(x)), (27, 89, 0), (24, 14, 1e3))
    chest = np.maximum(ellipsoid(side, (70, -78, 200), (60, 16, 66)), thorax.body + 6)
    flank = ellipsoid(side, (136, 34, 175), (17, 44, 95))
    blade = np.maximum(ellipsoid(side, (98, 68, 200), (56, 34, 80)), thorax.body + 6)
    neck = ellipsoid(side, (20, 2, 262), (34, 44, 52))
    trapezius = np.maximum(ellipsoid(side, (58, 74, 246), (78, 30, 62)), thorax.body + 6)
    deltoid = np.maximum(ellipsoid(side, (158, 10, 240), (46, 56, 52)), thorax.body + 6)
    return union(wall, back, chest, flank, blade, neck, trapezius, deltoid)


def _organs(points: Points, densities: Densities) -> list[tuple[Array, float]]:
    """Returns shapes and HU of liver, spleen and stomach with its gas bubble in front (supine patient)."""
    _, y, _ = points
    liver = union(
        ellipsoid(points, (-55, -8, 22), (86, 88, 80)), ellipsoid(points, (20, -52, 42), (62, 34, 30))
    )
    spleen = ellipsoid(points, (92, 40, 22), (36, 42, 46))
    stomach = ellipsoid(points, (66, -30, 24), (44, 44, 44))
    gas = np.maximum(stomach + 4, y + np.float32(46))
    return [
        (spleen, densities.spleen),
        (stomach, 45.0),
        (np.maximum(stomach + 4, -y - 46), 15.0),
        (gas, -960.0),
        (liver, densities.liver),
    ]


def paint_bones(
    image: Array, points: Points, anatomy: Anatomy, thorax: Thorax, texture: Array, width: float
) -> None:
    """Paints the skeleton: cortical bone around marrow, softer discs and cartilage."""
    vertebrae, canal = skeleton.spine(points)
    vertebrae = np.maximum(vertebrae, thorax.body + np.float32(5))
    soft = skeleton.disc(points)
    _paint_bone(image, vertebrae, soft, DISC_HU, anatomy, texture, width)
    paint(image, coverage(canal + 0.5, width), CANAL_HU)
    _paint_bone(
        image,
        skeleton.ribs(points, thorax),
        skeleton.cartilage(points),
        CARTILAGE_HU,
        anatomy,
        texture,
        width,
    )
    rest = union(skeleton.sternum(points), skeleton.shoulder(points, thorax))
    inside = np.maximum(rest, thorax.body + np.float32(5))
    _paint_bone(image, inside, np.zeros_like(soft), DISC_HU, anatomy, texture, width)


def _paint_bone(
    image: Array, shape: Array, soft: Array, soft_hu: float, anatomy: Anatomy, texture: Array, width: float
) -> None:
    shell = np.exp(-(((shape + 1.2) / 2.0) ** 2))  # 1 in cortical bone, 0 deep inside
    hard = anatomy.bone_hu * (MARROW_SHARE + (1 - MARROW_SHARE) * shell) + 30 * texture
    paint(image, coverage(shape, width), hard + soft * (soft_hu - hard))


def paint_mediastinum(image: Array, points: Points, densities: Densities, heart: Heart, width: float) -> None:
    """Paints heart, great vessels, oesophagus and trachea."""
    pericardium = np.minimum(
        union(*(heart.chambers[value] for value in HEART_LABELS)) - 2, heart.left_vessels - 1.2
    )
    paint(image, coverage(np.minimum(pericardium, heart.right_vessels - 1), width), MUSCLE_HU)
    gullet = tube(points, [(4, 32, 270), (6, 33, 150), (10, 30, 60), (30, 10, 20)], [7, 7, 8, 8])
    paint(image, coverage(gullet, width), MUSCLE_HU - 8)
    chambers = {
        **dict.fromkeys((LV, LA, AO), densities.left_blood),
        RV: densities.right_blood,
        RA: densities.right_atrium,
        PA: densities.right_blood,
        MYO: densities.myocardium,
    }
    for value, hu in chambers.items():
        paint(image, coverage(heart.chambers[value], width), hu)
    paint(image, coverage(heart.left_vessels, width), densities.left_blood)
    paint(image, coverage(heart.right_vessels, width), densities.great_veins)
    airways = central_airways(points)
    paint(image, coverage(airways - 1.5, width), MUSCLE_HU - 10)
    paint(image, coverage(airways, width), AIR_HU)


def paint_table(image: Array, x: Array, y: Array, back: float, thorax: Thorax, width: float) -> None:
    """Paints the scanner table, a thin curved shell under ``back``; grid coordinates in mm."""
    surface = np.float32(back + 12) - (x / 32) ** 2
    shell = np.maximum(np.abs(y - surface) - np.float32(1.2), np.float32(1) - thorax.body)
    paint(image, coverage(np.maximum(shell, np.abs(x) - 150), width), TABLE_HU)


LOWEST_HU, HIGHEST_HU = -1024, 3071
"""Range of a 12-bit scanner."""


def simulate_scan(
    random: np.random.Generator, ideal: Array, inside: Array, anatomy: Anatomy, grid: Grid
) -> NDArray[np.int16]:
    """Simulates the scanner: blur in the slice and noise, clipped to 12 bits.

    Args:
        random: draws the noise, white before a reconstruction filter in voxels.
        ideal: densities in HU.
        inside: signed distance to the skin, mm; noise grows with depth.
        anatomy: has the standard deviation of the noise (HU) and the blur (mm).
        grid: has the voxel size.
    """
    widths = [max(anatomy.blur / step, 0.35) for step in grid.spacing[:2]]
    blurred = ndimage.gaussian_filter(ideal, (*widths, 0.0))
    white = random.standard_normal(ideal.shape[::-1], dtype=np.float32).T
    grain = ndimage.gaussian_filter(white, (0.55, 0.55, 0.0))
    grain /= np.float32(grain.std() + 1e-6)
    strength = anatomy.noise_hu * np.clip(0.55 - inside / np.float32(110), 0.3, 1.3)
    return np.clip(np.rint(blurred + strength * grain), LOWEST_HU, HIGHEST_HU).astype(np.int16)


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
"""Size in mm of the irregularities of the borders."""
POINTS = 9000
"""Points drawn around the lungs; about a quarter of them lie inside."""


@dataclass(frozen=True)
class Phantom:
    """The images and label maps of one phantom patient.

    All arrays have one shape; axis 0 runs to the patient's left, axis 1 to the back, axis 2 to the head
    (nibabel's axis codes ``LPS``).

    Attributes:
        image: int16 HU.
        labels: uint16 maps. ``lung``: 1 right, 2 left (vessels, lesions and nodules within included);
            ``lesion``: 1 ground glass, 2 consolidation; ``nodule``: 1 solid, 2 part-solid, 3 spiculated;
            ``heart``: MM-WHS values 205, 420, 500, 550, 600, 820, 850.
        native: the same patient without contrast agent, int16 HU with its own noise; None if not requested.
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
    """Makes the phantom of one patient; the same arguments give the same bytes.

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

    Example:
        >>> phantom = make_phantom(seed=0, patient=1, shape=(16, 16, 8))
        >>> phantom.image.dtype, phantom.image.shape, phantom.spacing
        (dtype('int16'), (16, 16, 8), (22.5, 22.5, 30.0))
        >>> sorted(phantom.labels)
        ['heart', 'lesion', 'lung', 'nodule']
    """
    body = _build_patient(seed, patient, Grid(_check_shape(shape)))
    inside = body.thorax.lung < 0
    lesions = _draw_lesions(body, with_lesions)
    lesion_labels = lesions.labels(inside)
    nodules = _draw_nodules(body, with_nodules, inside & (lesion_labels == 0))
    labels = {
        "lung": np.where(inside, np.where(body.points[0] < 0, 1, 2), 0).astype(np.uint16),
        "lesion": lesion_labels,
        "nodule": nodules.labels,
        "heart": body.heart.labels,
    }
    painted = partial(_render, body, lesions, nodules, paint_branches(body.grid, _grow_vessels(body), SLAB))
    plain = painted(native_densities(body.random("native")), "native noise") if contrasts else None
    image = painted(enhanced_densities(body.anatomy), "noise")
    affine = body.grid.affine(body.anatomy.offset)
    return Phantom(image, labels, body.grid.spacing, affine, body.anatomy, plain)


def _render(
    patient: _Patient,
    lesions: LesionFields,
    nodules: NoduleFields,
    vessels: Array,
    densities: Densities,
    noise: str,
) -> NDArray[np.int16]:
    """Renders one scan of the patient; ``noise`` is the key of its random numbers."""
    ideal = _paint_body(patient, densities)
    _paint_lungs(ideal, patient, lesions, nodules, vessels, densities.lung_vessels)
    return simulate_scan(patient.random(noise), ideal, patient.thorax.body, patient.anatomy, patient.grid)


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or any(int(n) != n or n < SMALLEST for n in shape):
        raise UserError(f"phantom shape {tuple(shape)}: give three whole numbers of at least {SMALLEST}")
    return int(shape[0]), int(shape[1]), int(shape[2])


@dataclass(frozen=True)
class _Patient:
    """The shapes of a patient on a grid, before anything has a density."""

    random: Callable[[str], np.random.Generator]  # by purpose
    anatomy: Anatomy
    grid: Grid
    points: Points
    heart: Heart
    thorax: Thorax
    places: LungPoints
    texture: Array

    @property
    def width(self) -> float:
        """Voxel size in the slice, mm."""
        return float(min(self.grid.spacing[:2]))


def _build_patient(seed: int, patient: int, grid: Grid) -> _Patient:
    random = partial(make_rng, seed, "phantom", patient)
    anatomy = draw_anatomy(seed, patient)
    points = patient_points(grid, anatomy.pose)
    uneven = draw_noise(random("heart"), HEART_BUMPS), draw_noise(random("wobble"), BODY_BUMPS)
    heart = build_heart(points, anatomy, uneven[0].on_grid(grid))
    thorax = build_thorax(points, anatomy, heart, uneven[1].on_grid(grid))
    places = _draw_lung_points(random("places"), anatomy, uneven)
    texture = smooth_noise(random("texture"), grid, 9)
    return _Patient(random, anatomy, grid, points, heart, thorax, places, texture)


def _draw_lung_points(
    random: np.random.Generator, anatomy: Anatomy, uneven: tuple[SmoothNoise, SmoothNoise]
) -> LungPoints:
    """Draws points inside the lungs from the shapes themselves: the same at any voxel size."""
    candidates = draw_points(random, POINTS)
    x, y, z = candidates.T.astype(np.float32)
    on_grid = anatomy.pose.to_grid(candidates)
    heart = build_heart((x, y, z), anatomy, uneven[0].at_points(on_grid))
    return keep_inside_lung(candidates, build_thorax((x, y, z), anatomy, heart, uneven[1].at_points(on_grid)))


def _draw_lesions(patient: _Patient, wanted: bool) -> LesionFields:
    drawn = draw_lesions(patient.random("lesions"), patient.anatomy, patient.places) if wanted else []
    return paint_lesions(
        patient.random("lesion texture"), drawn, patient.grid, patient.anatomy.pose, patient.points
    )


def _draw_nodules(patient: _Patient, wanted: bool, free: NDArray[np.bool_]) -> NoduleFields:
    drawn = draw_nodules(patient.random("nodules"), patient.anatomy.nodules, patient.places) if wanted else []
    return paint_nodules(drawn, patient.grid, patient.anatomy.pose, patient.points, free)


def _grow_vessels(patient: _Patient) -> Branches:
    """Grows arteries (from even points) and veins (from odd ones) of both lungs, in grid mm."""
    places, pose = patient.places, patient.anatomy.pose
    trees = []
    for number, root in enumerate(TREES):
        own = places.patient[(places.patient[:, 0] * root[0] > 0) & (places.depth > 3)]
        trees.append(grow_tree(np.array(root), own[number % 2 :: 2][:TREE_ENDS]))
    starts = np.concatenate([tree.starts for tree in trees])
    ends = np.concatenate([tree.ends for tree in trees])
    return Branches(pose.to_grid(starts), pose.to_grid(ends), np.concatenate([tree.radii for tree in trees]))


def _paint_body(patient: _Patient, densities: Densities) -> Array:
    """Paints everything but the inside of the lungs; returns HU."""
    points, anatomy, thorax, width = patient.points, patient.anatomy, patient.thorax, patient.width
    image = paint_soft_tissue(points, thorax, densities, patient.texture, width)
    paint_bones(image, points, anatomy, thorax, patient.texture, width)
    paint_mediastinum(image, points, densities, patient.heart, width)
    back = float(anatomy.pose.to_grid(np.array([[0.0, body_back(anatomy), 120.0]]))[0, 1])
    x, y = patient.grid.axis(0)[:, None, None], patient.grid.axis(1)[None, :, None]
    paint_table(image, x, y, back, thorax, width)
    return image


def _paint_lungs(
    image: Array,
    patient: _Patient,
    lesions: LesionFields,
    nodules: NoduleFields,
    vessels: Array,
    vessel_hu: float,
) -> None:
    """Paints air, lesions, vessels, bronchi and nodules into the lungs of ``image``."""
    anatomy, width = patient.anatomy, patient.width
    slope = np.float32(anatomy.lung_gradient / 180)
    content = anatomy.lung_hu + slope * patient.points[1] + 14 * patient.texture
    paint(content, lesions.opacity, lesions.ground_glass_hu)
    paint(content, lesions.core, lesions.consolidation_hu)
    paint(content, vessels, vessel_hu)
    bronchi = lobar_bronchi(patient.points)
    paint(content, 0.6 * coverage(bronchi - 1, width), -150.0)
    paint(content, coverage(bronchi, width), BRONCHUS_HU)
    paint(content, nodules.share, nodules.hu)
    paint(image, coverage(patient.thorax.lung, width), content)
