"""One anatomical chest phantom: an image in HU and its label maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.phantoms import chest as skeleton
from common.data.phantoms.anatomy import Anatomy, Array, Grid, Points, Vector, draw_anatomy, patient_points
from common.data.phantoms.chest import Thorax, body_back, build_thorax, central_airways, lobar_bronchi
from common.data.phantoms.heart import AO, HEART_LABELS, LA, LV, MYO, PA, RA, RV, Heart, build_heart
from common.data.phantoms.lesions import (
    LesionFields,
    Places,
    build_lesions,
    draw_candidates,
    draw_lesions,
    keep_inside,
)
from common.data.phantoms.nodules import NoduleFields, build_nodules, draw_nodules
from common.data.phantoms.shapes import (
    SmoothNoise,
    coverage,
    draw_noise,
    ellipsoid,
    smooth_noise,
    tube,
    union,
)
from common.data.phantoms.vessels import Branches, grow_tree, paint_branches
from common.errors import UserError
from common.rng import make_rng

BLOOD_HU = (36.0, 52.0)
"""Native blood, by its haematocrit."""


@dataclass(frozen=True)
class Enhancement:
    """Densities in HU of all that takes up contrast agent; everything else looks alike with and without."""

    left_blood: float
    """Left heart, aorta, neck arteries and pulmonary veins."""
    right_blood: float
    right_atrium: float
    """Mixes enhanced and plain blood."""
    great_veins: float
    lung_vessels: float
    """Thinner than a voxel or two: partial volume leaves less of the blood's density."""
    myocardium: float
    liver: float
    spleen: float


def enhanced(anatomy: Anatomy) -> Enhancement:
    """The patient's CT angiography."""
    left, right = anatomy.blood_left_hu, anatomy.blood_right_hu
    return Enhancement(
        left_blood=left,
        right_blood=right,
        right_atrium=0.9 * right,
        great_veins=0.85 * right,
        lung_vessels=40.0 + 0.35 * right,
        myocardium=95.0,
        liver=105.0,
        spleen=120.0,
    )


def native(random: np.random.Generator) -> Enhancement:
    """A scan without contrast agent: blood and muscle nearly alike, the wall brighter in anaemia."""
    blood = float(random.uniform(*BLOOD_HU))
    return Enhancement(
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
"""Density of marrow relative to the bone's hard shell."""


def paint(image: Array, share: Array, hu: float | Array) -> None:
    """Mixes ``hu`` into ``image`` in place by ``share`` 0 to 1."""
    image += share * (hu - image)


def soft_tissue(
    points: Points, thorax: Thorax, enhancement: Enhancement, texture: Array, width: float
) -> Array:
    """Air, fat, muscles and the organs below the diaphragm; HU."""
    image = np.full_like(points[0], AIR_HU)
    paint(image, coverage(thorax.body, width), MUSCLE_HU - 10)  # skin
    paint(image, coverage(thorax.body + np.float32(2.2), width), FAT_HU + 10 * texture)
    paint(
        image, coverage(np.maximum(_muscles(points, thorax), thorax.body + 4), width), MUSCLE_HU + 7 * texture
    )
    paint(image, coverage(thorax.cavity - 1, width), FAT_HU + 14 + 16 * texture)
    belly = np.maximum(thorax.cavity, -thorax.diaphragm + 2)
    for shape, hu in _organs(points, enhancement):
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


def _organs(points: Points, enhancement: Enhancement) -> list[tuple[Array, float]]:
    """Liver, spleen and stomach with its gas bubble in front (the patient lies on the back)."""
    _, y, _ = points
    liver = union(
        ellipsoid(points, (-55, -8, 22), (86, 88, 80)), ellipsoid(points, (20, -52, 42), (62, 34, 30))
    )
    spleen = ellipsoid(points, (92, 40, 22), (36, 42, 46))
    stomach = ellipsoid(points, (66, -30, 24), (44, 44, 44))
    gas = np.maximum(stomach + 4, y + np.float32(46))
    return [
        (spleen, enhancement.spleen),
        (stomach, 45.0),
        (np.maximum(stomach + 4, -y - 46), 15.0),
        (gas, -960.0),
        (liver, enhancement.liver),
    ]


def bones(
    image: Array, points: Points, anatomy: Anatomy, thorax: Thorax, texture: Array, width: float
) -> None:
    """Paints the skeleton: a hard shell around marrow, discs and cartilage softer."""
    vertebrae, canal = skeleton.spine(points)
    vertebrae = np.maximum(vertebrae, thorax.body + np.float32(5))
    soft = skeleton.disc(points)
    _bone(image, vertebrae, soft, DISC_HU, anatomy, texture, width)
    paint(image, coverage(canal + 0.5, width), CANAL_HU)
    _bone(
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
    _bone(image, inside, np.zeros_like(soft), DISC_HU, anatomy, texture, width)


def _bone(
    image: Array, shape: Array, soft: Array, soft_hu: float, anatomy: Anatomy, texture: Array, width: float
) -> None:
    shell = np.exp(-(((shape + 1.2) / 2.0) ** 2))  # 1 in the hard shell, 0 deep inside
    hard = anatomy.bone_hu * (MARROW_SHARE + (1 - MARROW_SHARE) * shell) + 30 * texture
    paint(image, coverage(shape, width), hard + soft * (soft_hu - hard))


def middle(image: Array, points: Points, blood: Enhancement, heart: Heart, width: float) -> None:
    """Paints heart, vessels, gullet and windpipe."""
    pericardium = np.minimum(
        union(*(heart.chambers[value] for value in HEART_LABELS)) - 2, heart.left_vessels - 1.2
    )
    paint(image, coverage(np.minimum(pericardium, heart.right_vessels - 1), width), MUSCLE_HU)
    gullet = tube(points, [(4, 32, 270), (6, 33, 150), (10, 30, 60), (30, 10, 20)], [7, 7, 8, 8])
    paint(image, coverage(gullet, width), MUSCLE_HU - 8)
    densities = {
        **dict.fromkeys((LV, LA, AO), blood.left_blood),
        RV: blood.right_blood,
        RA: blood.right_atrium,
        PA: blood.right_blood,
        MYO: blood.myocardium,
    }
    for value, hu in densities.items():
        paint(image, coverage(heart.chambers[value], width), hu)
    paint(image, coverage(heart.left_vessels, width), blood.left_blood)
    paint(image, coverage(heart.right_vessels, width), blood.great_veins)
    airways = central_airways(points)
    paint(image, coverage(airways - 1.5, width), MUSCLE_HU - 10)
    paint(image, coverage(airways, width), AIR_HU)


def table(image: Array, x: Array, y: Array, back: float, thorax: Thorax, width: float) -> None:
    """Paints the scanner's table, a thin curved shell under the ``back``; grid coordinates in mm."""
    surface = np.float32(back + 12) - (x / 32) ** 2
    shell = np.maximum(np.abs(y - surface) - np.float32(1.2), np.float32(1) - thorax.body)
    paint(image, coverage(np.maximum(shell, np.abs(x) - 150), width), TABLE_HU)


LOWEST_HU, HIGHEST_HU = -1024, 3071
"""Range of a 12-bit scanner."""


def scan(
    random: np.random.Generator, ideal: Array, inside: Array, anatomy: Anatomy, grid: Grid
) -> NDArray[np.int16]:
    """The image a scanner makes of ``ideal`` HU.

    Args:
        random: draws the noise; it is white before the reconstruction filter, so it belongs to the voxels.
        ideal: densities in HU.
        inside: signed distance to the body's surface, mm; noise grows with depth.
        anatomy: gives the noise's standard deviation (HU) and the blur (mm).
        grid: gives the voxel size.
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
    random = partial(make_rng, seed, "phantom", patient)
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
    image = soft_tissue(points, thorax, enhancement, body.texture, width)
    bones(image, points, anatomy, thorax, body.texture, width)
    middle(image, points, enhancement, body.heart, width)
    back = float(anatomy.pose.to_grid(np.array([[0.0, body_back(anatomy), 120.0]]))[0, 1])
    x, y = body.grid.axis(0)[:, None, None], body.grid.axis(1)[None, :, None]
    table(image, x, y, back, thorax, width)
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
    paint(content, lesions.opacity, lesions.ground_glass_hu)
    paint(content, lesions.core, lesions.consolidation_hu)
    paint(content, vessels, vessel_hu)
    bronchi = lobar_bronchi(body.points)
    paint(content, 0.6 * coverage(bronchi - 1, width), -150.0)
    paint(content, coverage(bronchi, width), BRONCHUS_HU)
    paint(content, nodules.share, nodules.hu)
    paint(image, coverage(body.thorax.lung, width), content)
