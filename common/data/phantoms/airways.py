"""Trachea, main and lobar bronchi."""

from __future__ import annotations

from common.data.phantoms.fields import tube, union
from common.data.phantoms.grid import Array, Points, Vector

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
    """Signed distance in mm to the trachea and the two main bronchi (outside the lungs)."""
    main = (tube(points, course, radii) for course, radii in (RIGHT_BRONCHI[0], LEFT_BRONCHI[0]))
    return union(tube(points, TRACHEA, [8.5, 8.5, 9]), *main)


def lobar_bronchi(points: Points) -> Array:
    """Signed distance in mm to the bronchi inside the lungs."""
    return union(*(tube(points, course, radii) for course, radii in RIGHT_BRONCHI[1:] + LEFT_BRONCHI[1:]))
