"""The chest's large shapes: body, thoracic cavity, diaphragm, mediastinum and the lungs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.data.phantoms.airways import central_airways
from common.data.phantoms.anatomy import Anatomy
from common.data.phantoms.fields import blend, ellipsoid, profile, tube
from common.data.phantoms.grid import Array, Points
from common.data.phantoms.heart import Heart

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
    """Signed distances in mm, negative inside."""

    body: Array
    cavity: Array
    diaphragm: Array
    mediastinum: Array
    lung: Array


def build_thorax(points: Points, anatomy: Anatomy, heart: Heart, wobble: Array) -> Thorax:
    """The large shapes. ``wobble`` is a smooth unit-variance field that makes borders irregular."""
    cavity = _cavity(points) + wobble
    diaphragm = _diaphragm(points, anatomy) + np.float32(3) * wobble
    mediastinum = _mediastinum(points, heart) + np.float32(0.8) * wobble
    lung = np.maximum(np.maximum(cavity, diaphragm), -mediastinum)
    # Even a thin patient has skin, fat and muscle over the ribs.
    over_ribs = cavity - np.float32(15 + 0.3 * anatomy.fat)
    body = blend(_body(points, anatomy), over_ribs, 10) + wobble
    return Thorax(body, cavity, diaphragm, mediastinum, lung)


def _oval(u: Array, v: Array, power: float) -> Array:
    """Level of a superellipse: 0 at the centre, 1 on the border."""
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
    """Where the back touches the table: y in patient mm at the middle of the chest."""
    return 6 + 112 + 0.6 * (anatomy.fat - 14)


def _cavity(points: Points) -> Array:
    """Inside of the rib cage: two halves side by side, joined in front of the spine."""
    x, y, z = points
    width, depth = profile(z, HEIGHTS, CAVITY_WIDTH), profile(z, HEIGHTS, CAVITY_DEPTH)
    side, back = profile(z, HEIGHTS, CAVITY_SIDE), profile(z, HEIGHTS, CAVITY_BACK)
    v = (y - back) / depth
    right, left = (_oval((x - sign * side) / width, v, 2.3) for sign in (-1, 1))
    halves = blend((right - 1) * width, (left - 1) * width, 14)
    return np.maximum(halves, z - np.float32(HEIGHTS[-1]))


def _diaphragm(points: Points, anatomy: Anatomy) -> Array:
    """Two domes, the right one higher; they fall steeply to the side and to the back (costophrenic angle)."""
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
    # From the oesophagus to the thymus: a plate, wide behind, thin where the lungs meet in front.
    half_width = profile(y, (-95, -70, -45, -5, 20, 45), (16, 3, 7, 19, 17, 14))
    half_width = half_width + profile(z, (150, 200, 236), (0, 3, 10))
    right_hilum, left_hilum = (ellipsoid(points, (s * 30, 12, 150), (17, 17, 24)) for s in (-1, 1))
    hilum = blend(right_hilum, left_hilum, 10)
    windpipe = central_airways(points) - np.float32(3)
    shape = blend(blend(inflated, np.abs(x) - half_width, 10), blend(spine, hilum, 12), 12)
    return blend(shape, windpipe, 6)
