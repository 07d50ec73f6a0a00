"""The chest as signed distances: body, thoracic cavity, diaphragm, mediastinum, lungs, skeleton."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.data.phantoms.anatomy import Anatomy, Array, Points, Vector
from common.data.phantoms.heart import Heart
from common.data.phantoms.shapes import blend, capsule, ellipsoid, profile, tube, union

Course = tuple[list[Vector], list[float]]
"""Points and radii in mm."""

TRACHEA: list[Vector] = [(0, 10, 270), (0, 16, 220), (1, 22, 166)]
RIGHT_BRONCHI: list[Course] = [
    ([(1, 22, 166), (-20, 24, 153), (-36, 24, 143)], [7.5, 6.5, 5.5]),
    ([(-24, 24, 151), (-46, 18, 164), (-58, 10, 180)], [4.5, 3.5, 2]),
    ([(-36, 24, 143), (-50, 2, 124), (-62, -22, 112)], [4, 3, 1.5]),
    ([(-36, 24, 143), (-48, 36, 116), (-60, 50, 84)], [5, 4, 2]),
]
LEFT_BRONCHI: list[Course] = [
    ([(1, 22, 166), (24, 26, 152), (42, 28, 144)], [7, 6, 5.5]),
    ([(40, 28, 145), (54, 10, 158), (64, -8, 174)], [4.5, 3, 1.5]),
    ([(42, 28, 144), (54, 42, 116), (64, 54, 86)], [5, 4, 2]),
]


def central_airways(points: Points) -> Array:
    """Returns the signed distance in mm to the trachea and the two main bronchi (outside the lungs)."""
    main = (tube(points, course, radii) for course, radii in (RIGHT_BRONCHI[0], LEFT_BRONCHI[0]))
    return union(tube(points, TRACHEA, [8.5, 8.5, 9]), *main)


def lobar_bronchi(points: Points) -> Array:
    """Returns the signed distance in mm to the bronchi inside the lungs."""
    return union(*(tube(points, course, radii) for course, radii in RIGHT_BRONCHI[1:] + LEFT_BRONCHI[1:]))


HEIGHTS = (0, 40, 90, 140, 180, 205, 222, 236)
"""Heights in mm at which the profiles below are given; 236 is the apex of the lungs."""
CAVITY_WIDTH = (84, 84, 83, 79, 69, 55, 38, 14)
CAVITY_DEPTH = (92, 92, 89, 83, 70, 55, 38, 12)
CAVITY_SIDE = (52, 52, 52, 50, 47, 45, 43, 42)
CAVITY_BACK = (4, 3, 2, 3, 8, 14, 20, 24)
BODY_WIDTH = (152, 155, 158, 161, 168, 178, 184, 186)
BODY_DEPTH = (110, 112, 112, 110, 107, 103, 99, 96)


@dataclass(frozen=True)
class Thorax:
    """The large shapes of the chest as signed distances in mm, negative inside."""

    body: Array
    cavity: Array
    diaphragm: Array
    mediastinum: Array
    lung: Array


def build_thorax(points: Points, anatomy: Anatomy, heart: Heart, wobble: Array) -> Thorax:
    """Builds the large shapes; ``wobble`` is a smooth field of unit variance that makes borders irregular."""
    cavity = _cavity(points) + wobble
    diaphragm = _diaphragm(points, anatomy) + np.float32(3) * wobble
    mediastinum = _mediastinum(points, heart) + np.float32(0.8) * wobble
    lung = np.maximum(np.maximum(cavity, diaphragm), -mediastinum)
    # Even a thin patient has skin, fat and muscle over the ribs.
    over_ribs = cavity - np.float32(15 + 0.3 * anatomy.fat)
    body = blend(_body(points, anatomy), over_ribs, 10) + wobble
    return Thorax(body, cavity, diaphragm, mediastinum, lung)


def _oval(u: Array, v: Array, power: float) -> Array:
    """Returns the level of a superellipse: 0 at the centre, 1 on the border."""
    return np.asarray(
        (np.abs(u) ** power + np.abs(v) ** power + np.float32(1e-6)) ** (1 / power), dtype=np.float32
    )


def _body(points: Points, anatomy: Anatomy) -> Array:
    x, y, z = points
    width = profile(z, HEIGHTS, BODY_WIDTH) + np.float32(anatomy.fat - 14)
    depth = profile(z, HEIGHTS, BODY_DEPTH) + np.float32(0.6 * (anatomy.fat - 14))
    # The back is flatter than the front and has a groove over the spine.
    groove = 5 * np.exp(-((x / 16) ** 2)) * (y > 0)
    return (_oval(x / width, (y - 6) / (depth - groove), 2.5) - 1) * np.minimum(width, depth)


def body_back(anatomy: Anatomy) -> float:
    """Returns where the back touches the table: y in patient mm at the middle of the chest."""
    return 6 + 112 + 0.6 * (anatomy.fat - 14)


def _cavity(points: Points) -> Array:
    """Returns the inside of the rib cage: two halves side by side, joined in front of the spine."""
    x, y, z = points
    width, depth = profile(z, HEIGHTS, CAVITY_WIDTH), profile(z, HEIGHTS, CAVITY_DEPTH)
    side, back = profile(z, HEIGHTS, CAVITY_SIDE), profile(z, HEIGHTS, CAVITY_BACK)
    v = (y - back) / depth
    right, left = (_oval((x - sign * side) / width, v, 2.3) for sign in (-1, 1))
    halves = blend((right - 1) * width, (left - 1) * width, 14)
    return np.maximum(halves, z - np.float32(HEIGHTS[-1]))


def _diaphragm(points: Points, anatomy: Anatomy) -> Array:
    """Returns two domes, the right one higher, that fall steeply to the side and the back."""
    x, y, z = points
    right = anatomy.diaphragm - 60 * ((x + 58) / 78) ** 2 - 62 * ((y + 22) / 80) ** 2
    left = anatomy.diaphragm - 14 - 60 * ((x - 58) / 78) ** 2 - 62 * ((y + 20) / 80) ** 2
    top = -blend(-right.astype(np.float32), -left.astype(np.float32), 20)
    slope = np.sqrt(1 + ((np.abs(x) - 58) / 50) ** 2 + ((y + 20) / 52) ** 2)
    return np.asarray((top - z) / slope, dtype=np.float32)


def _mediastinum(points: Points, heart: Heart) -> Array:
    x, y, z = points
    inflated = heart.outline - np.float32(3.5)
    spine = tube(points, [(0, 56, -40), (0, 55, 300)], [21, 20])
    # A plate from the oesophagus to the thymus, wide behind, thin where the lungs meet in front.
    half_width = profile(y, (-95, -70, -45, -5, 20, 45), (16, 3, 7, 19, 17, 14))
    half_width = half_width + profile(z, (150, 200, 236), (0, 3, 10))
    right_hilum, left_hilum = (ellipsoid(points, (s * 30, 12, 150), (17, 17, 24)) for s in (-1, 1))
    hilum = blend(right_hilum, left_hilum, 10)
    windpipe = central_airways(points) - np.float32(3)
    shape = blend(blend(inflated, np.abs(x) - half_width, 10), blend(spine, hilum, 12), 12)
    return blend(shape, windpipe, 6)


RIB_SPACING = 24.0
RIB_SLOPE, RIB_FALL = 0.42, 0.34
"""Slope of the ribs: mm down for each mm to the front, and to the side."""
TOP_RIB = 220.0
"""No rib above this height in mm."""
VERTEBRA_HEIGHT = 24.0
CARTILAGE_FRONT = -66.0
"""In front of this y (mm) a rib is cartilage."""


def ribs(points: Points, thorax: Thorax) -> Array:
    """Returns the signed distance in mm to the ribs: slanted rings in the wall of the cavity."""
    x, y, z = points
    height = z - np.float32(RIB_SLOPE) * y + np.float32(RIB_FALL) * np.abs(x)
    across = (np.mod(height, RIB_SPACING) - RIB_SPACING / 2) * 0.9
    depth = thorax.cavity - np.float32(6.5)
    shape = (np.sqrt((across / 6.2) ** 2 + (depth / 3.9) ** 2) - 1) * 3.9
    beside_spine = np.float32(14) - np.abs(x)
    return within(np.asarray(shape, dtype=np.float32), beside_spine, z - np.float32(TOP_RIB))


def within(shape: Array, *limits: Array) -> Array:
    """Returns the shape cut to where every limit is negative."""
    for limit in limits:
        shape = np.maximum(shape, limit)
    return np.asarray(shape, dtype=np.float32)


def cartilage(points: Points) -> Array:
    """Returns the share 0 to 1 by which a rib is cartilage rather than bone."""
    return np.clip((np.float32(CARTILAGE_FRONT) - points[1]) / 6, 0, 1)


def spine(points: Points) -> tuple[Array, Array]:
    """Returns the signed distances in mm to the vertebrae (discs included) and to the spinal canal."""
    x, y, z = points
    body = ellipsoid((x, y, np.zeros_like(x)), (0, 56, 0), (19, 15.5, 1e3))
    canal = ellipsoid((x, y, np.zeros_like(x)), (0, 78, 0), (10, 8.5, 1e3))
    ring = canal - np.float32(4.5)
    level = np.mod(z, VERTEBRA_HEIGHT) - VERTEBRA_HEIGHT / 2
    folded = (np.abs(x), y, np.asarray(level, dtype=np.float32))
    transverse = capsule(folded, (9, 80, 2), (36, 90, 6), (5.5, 4))
    process = capsule(folded, (0, 88, 3), (0, 106, -6), (4.5, 3.0))
    arch = np.maximum(union(ring, transverse, process), -canal)
    # Between two arches the canal is open to the back.
    arch = np.maximum(arch, np.abs(level) - np.float32(9.5))
    return within(union(body, arch), -canal), canal


def disc(points: Points) -> Array:
    """Returns the share 0 to 1 by which the spine is disc rather than vertebra at this height."""
    level = np.abs(np.mod(points[2], VERTEBRA_HEIGHT) - VERTEBRA_HEIGHT / 2)
    share = np.clip((level - np.float32(VERTEBRA_HEIGHT / 2 - 3)) / 2, 0, 1) * (points[1] < 72)
    return np.asarray(share, dtype=np.float32)


def sternum(points: Points) -> Array:
    """Returns the signed distance in mm to the sternum, which leans back towards the neck."""
    x, y, z = points
    front = profile(z, (0, 60, 140, 200, 225), (-88, -88, -84, -71, -60))
    half = profile(z, (60, 100, 170, 195, 215), (8, 14, 13, 24, 26))
    shape = (np.sqrt((x / half) ** 2 + ((y - front) / 6.5) ** 2) - 1) * 6.5
    return np.asarray(
        np.maximum(shape, np.maximum(np.float32(58) - z, z - np.float32(222))), dtype=np.float32
    )


def shoulder(points: Points, thorax: Thorax) -> Array:
    """Returns the signed distance in mm to the shoulder blades and collar bones."""
    x, y, z = points
    side = (np.abs(x), y, z)
    plate = np.abs(thorax.cavity - profile(z, (120, 190, 240), (22, 26, 34))) - np.float32(3.2)
    angle = np.degrees(np.arctan2(np.abs(x), y - 5))  # 0 at the back, 90 at the side
    limits = np.maximum(profile(z, (120, 180), (50, 38)) - angle, angle - profile(z, (120, 200), (56, 82)))
    blade = np.maximum(np.maximum(plate, limits), np.float32(128) - z)
    spur = capsule(side, (88, 86, 205), (150, 50, 238), (6, 8))
    collar = tube(side, [(20, -62, 214), (60, -66, 226), (120, -36, 240)], [8, 6.5, 6])
    return np.asarray(union(blade, spur, collar), dtype=np.float32)
