"""The seven cardiac structures of MM-WHS, the great veins and the descending aorta, as signed distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.anatomy import Anatomy, Array, Points
from common.data.phantoms.shapes import ellipsoid, sum_of_products, tube, union

MYO, LA, LV, RA, RV, AO, PA = 205, 420, 500, 550, 600, 820, 850
"""Label values of MM-WHS 2017: myocardium of the left ventricle, left atrium, left ventricle, right atrium,
right ventricle, ascending aorta (here with the arch), pulmonary artery (here up to the first branches)."""
HEART_LABELS = (MYO, LA, LV, RA, RV, AO, PA)

WALL = 2.5
"""Least thickness of the walls between two blood pools, mm."""

AORTA = [
    (3, 0, 118),
    (-5, -14, 134),
    (-13, -22, 156),
    (-9, -17, 178),
    (2, 0, 190),
    (15, 22, 187),
    (21, 37, 176),
]
AORTA_RADII = [11, 15, 15, 14.5, 13, 12.5, 12]
DESCENDING = [(21, 37, 176), (23, 41, 150), (21, 42, 90), (12, 38, 30), (4, 34, -30)]
OUTFLOW = [(6, -46, 108), (12, -42, 128), (14, -38, 140)]
PULMONARY = [(14, -38, 140), (17, -24, 156), (14, -8, 163)]
LEFT_PULMONARY = [(14, -8, 163), (32, 6, 166), (46, 20, 160)]
RIGHT_PULMONARY = [(14, -8, 163), (-12, 3, 158), (-36, 6, 154), (-50, 10, 148)]
SUPERIOR_CAVA = [(-25, -18, 260), (-26, -13, 200), (-26, -8, 138)]
INFERIOR_CAVA = [(-24, 2, 96), (-22, 8, 70), (-18, 14, -20)]
NECK_ARTERIES = [
    [(-6, -8, 190), (-14, -2, 212), (-24, -2, 260)],
    [(4, 4, 192), (10, 8, 215), (18, 8, 260)],
    [(13, 18, 190), (20, 22, 215), (34, 22, 260)],
]
PULMONARY_VEINS = [
    [(-20, 20, 124), (-44, 22, 118)],
    [(-20, 12, 132), (-44, 2, 138)],
    [(24, 20, 122), (46, 26, 114)],
    [(24, 12, 132), (46, 8, 142)],
]


@dataclass(frozen=True)
class Heart:
    """The heart as signed distances in mm; ``chambers`` maps MM-WHS values to shapes that do not overlap."""

    chambers: dict[int, Array]
    left_vessels: Array
    """Descending aorta, neck arteries and pulmonary veins: blood of the left heart, without a label."""
    right_vessels: Array
    """Superior and inferior vena cava."""
    outline: Array
    """Union of all of these: it displaces the lungs."""

    @property
    def labels(self) -> NDArray[np.uint16]:
        """The MM-WHS label map, 0 outside."""
        result = np.zeros_like(self.outline, np.uint16)
        for value, shape in self.chambers.items():
            result[shape < 0] = value
        return result


def build_heart(points: Points, anatomy: Anatomy, wobble: Array) -> Heart:
    """Builds the heart.

    Args:
        points: patient coordinates in mm, three arrays of one shape.
        wobble: smooth field in mm that makes the borders of the chambers irregular.
    """
    own = _heart_points(points, anatomy)
    chambers = _separated({value: shape + wobble for value, shape in _chambers(own).items()})
    left = union(
        tube(own, DESCENDING, [12, 12, 11.5, 11, 10.5]),
        *(tube(own, course, [6, 4.5, 4]) for course in NECK_ARTERIES),
        *(tube(own, course, [7, 5.5]) for course in PULMONARY_VEINS),
    )
    right = union(tube(own, SUPERIOR_CAVA, [8, 9, 10]), tube(own, INFERIOR_CAVA, [12, 12, 11]))
    return Heart(chambers, left, right, union(left, right, *chambers.values()))


def _heart_points(points: Points, anatomy: Anatomy) -> Points:
    """Returns coordinates in the standard heart: rotated, scaled and shifted about its middle."""
    centre = np.array([10.0, -12.0, 115.0])
    angle, size = np.deg2rad(anatomy.heart_turn), anatomy.heart_size
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) / size
    # The great vessels above the heart stay beside the trachea: the transform fades out with height.
    fade = np.clip((np.float32(185) - points[2]) / np.float32(60), 0, 1)
    fade = fade * np.clip((np.float32(32) - points[1]) / np.float32(20), 0, 1)
    moved = [p - np.float32(c + s) for p, c, s in zip(points, centre, anatomy.heart_shift, strict=True)]
    own = [
        sum_of_products(moved, row) + np.float32(c)
        for row, c in zip(turn.astype(np.float32), centre, strict=True)
    ]
    x, y, z = (fade * o + (1 - fade) * p for o, p in zip(own, points, strict=True))
    return x, y, z


def _axes(direction: tuple[float, float, float]) -> NDArray[np.float64]:
    """Returns three orthogonal unit vectors as rows, the first along ``direction``, the second horizontal."""
    first = np.array(direction) / np.linalg.norm(direction)
    second = np.cross([0.0, 0.0, 1.0], first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


def _chambers(points: Points) -> dict[int, Array]:
    """Returns the seven shapes, each as if it were alone, without walls between them."""
    long = _axes((0.72, -0.58, -0.38))
    middle = (34.0, -20.0, 101.0)
    along = sum_of_products(
        [p - np.float32(c) for p, c in zip(points, middle, strict=True)], long[0].astype(np.float32)
    )
    base = np.float32(-25) - along  # positive behind the plane of the valves
    left_ventricle = np.maximum(ellipsoid(points, middle, (40, 20, 22), long), base)
    myocardium = np.maximum(ellipsoid(points, middle, (50, 30.5, 32), long), base)
    right = _axes((0.78, -0.42, -0.34))
    right_ventricle = union(
        ellipsoid(points, (10, -44, 97), (44, 22, 28), right), tube(points, OUTFLOW, [15, 14, 13])
    )
    return {
        LV: left_ventricle,
        MYO: myocardium,
        RV: right_ventricle,
        AO: tube(points, AORTA, AORTA_RADII),
        PA: union(
            tube(points, PULMONARY, [13, 13.5, 12.5]),
            tube(points, LEFT_PULMONARY, [11, 10, 8.5]),
            tube(points, RIGHT_PULMONARY, [10, 9.5, 9, 7.5]),
        ),
        LA: union(
            ellipsoid(points, (0, 15, 124), (30, 17, 23)), ellipsoid(points, (24, 0, 136), (14, 9, 10))
        ),
        RA: union(
            ellipsoid(points, (-31, -14, 110), (20, 24, 30)), ellipsoid(points, (-14, -30, 124), (11, 9, 11))
        ),
    }


def _separated(alone: dict[int, Array]) -> dict[int, Array]:
    """Makes the shapes disjoint: later ones end a wall's thickness before earlier ones."""
    result = {LV: alone[LV], MYO: np.maximum(alone[MYO], -alone[LV])}
    occupied = alone[MYO]
    for value in (AO, PA, RV, LA, RA):
        gap = 0.0 if value == AO else WALL
        result[value] = np.maximum(alone[value], np.float32(gap) - occupied)
        occupied = np.minimum(occupied, alone[value])
    return result
