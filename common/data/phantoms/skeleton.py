"""Ribs, spine, sternum, shoulder blades and collar bones: how deep each voxel lies in bone."""

from __future__ import annotations

import numpy as np

from common.data.phantoms.fields import capsule, ellipsoid, profile, tube, union
from common.data.phantoms.grid import Array, Points
from common.data.phantoms.thorax import Thorax

RIB_SPACING = 24.0
RIB_SLOPE, RIB_FALL = 0.42, 0.34
"""Ribs fall by so many mm for each mm to the front, and to the side."""
TOP_RIB = 220.0
"""No rib above this height in mm."""
VERTEBRA_HEIGHT = 24.0
CARTILAGE_FRONT = -66.0
"""In front of this y (mm) a rib is cartilage."""


def ribs(points: Points, thorax: Thorax) -> Array:
    """Signed distance in mm to the ribs: slanted rings in the wall of the cavity."""
    x, y, z = points
    height = z - np.float32(RIB_SLOPE) * y + np.float32(RIB_FALL) * np.abs(x)
    across = (np.mod(height, RIB_SPACING) - RIB_SPACING / 2) * 0.9
    depth = thorax.cavity - np.float32(6.5)
    shape = (np.sqrt((across / 6.2) ** 2 + (depth / 3.9) ** 2) - 1) * 3.9
    beside_spine = np.float32(14) - np.abs(x)
    return within(np.asarray(shape, dtype=np.float32), beside_spine, z - np.float32(TOP_RIB))


def within(shape: Array, *limits: Array) -> Array:
    """The shape where every limit is negative."""
    for limit in limits:
        shape = np.maximum(shape, limit)
    return np.asarray(shape, dtype=np.float32)


def cartilage(points: Points) -> Array:
    """Share 0 to 1 by which a rib is cartilage rather than bone."""
    return np.clip((np.float32(CARTILAGE_FRONT) - points[1]) / 6, 0, 1)


def spine(points: Points) -> tuple[Array, Array]:
    """Signed distances in mm to the vertebrae (discs included) and to the spinal canal."""
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
    """Share 0 to 1 by which the spine is disc rather than vertebra at this height."""
    level = np.abs(np.mod(points[2], VERTEBRA_HEIGHT) - VERTEBRA_HEIGHT / 2)
    share = np.clip((level - np.float32(VERTEBRA_HEIGHT / 2 - 3)) / 2, 0, 1) * (points[1] < 72)
    return np.asarray(share, dtype=np.float32)


def sternum(points: Points) -> Array:
    """Signed distance in mm to the breast bone, which leans back towards the neck."""
    x, y, z = points
    front = profile(z, (0, 60, 140, 200, 225), (-88, -88, -84, -71, -60))
    half = profile(z, (60, 100, 170, 195, 215), (8, 14, 13, 24, 26))
    shape = (np.sqrt((x / half) ** 2 + ((y - front) / 6.5) ** 2) - 1) * 6.5
    return np.asarray(
        np.maximum(shape, np.maximum(np.float32(58) - z, z - np.float32(222))), dtype=np.float32
    )


def shoulder(points: Points, thorax: Thorax) -> Array:
    """Signed distance in mm to the shoulder blades and collar bones."""
    x, y, z = points
    side = (np.abs(x), y, z)
    plate = np.abs(thorax.cavity - profile(z, (120, 190, 240), (22, 26, 34))) - np.float32(3.2)
    angle = np.degrees(np.arctan2(np.abs(x), y - 5))  # 0 at the back, 90 at the side
    limits = np.maximum(profile(z, (120, 180), (50, 38)) - angle, angle - profile(z, (120, 200), (56, 82)))
    blade = np.maximum(np.maximum(plate, limits), np.float32(128) - z)
    spur = capsule(side, (88, 86, 205), (150, 50, 238), (6, 8))
    collar = tube(side, [(20, -62, 214), (60, -66, 226), (120, -36, 240)], [8, 6.5, 6])
    return np.asarray(union(blade, spur, collar), dtype=np.float32)
