"""Densities in HU, and how the shapes are painted over one another."""

from __future__ import annotations

import numpy as np

from common.data.phantoms import skeleton
from common.data.phantoms.airways import central_airways
from common.data.phantoms.anatomy import Anatomy
from common.data.phantoms.contrast import Enhancement
from common.data.phantoms.fields import coverage, ellipsoid, tube, union
from common.data.phantoms.grid import Array, Points
from common.data.phantoms.heart import AO, HEART_LABELS, LA, LV, MYO, PA, RA, RV, Heart
from common.data.phantoms.thorax import Thorax

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
