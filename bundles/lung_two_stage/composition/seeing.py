"""What of a nodule a reader sees in a picture: its outline at half of its contrast, and how wide that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes, label, maximum_filter, zoom

FINE_MM = 0.5
"""Side of the points on which the outline runs, about; at most half of a pixel's."""
REACH_MM = 2.0
"""What surrounds a pixel: farther than blur reaches from an edge."""
LEAST = 80.0
"""HU of contrast that can be told from lung."""
OVER_NOISE = 3.0
"""And that in standard deviations of the noise."""
SEEN = 0.2
"""Share of the mask that an outline has at least (specks have less); 0.25 where the mask is twice as wide."""


@dataclass(frozen=True)
class Outline:
    """The outline of a nodule.

    Args:
        points: (P, 2) row and column, in pixels of the picture, of what lies within.
        diameter_mm: of the disc with the area that the contour holds; pixels that it cuts count in part.
        point_mm: side of what a point stands for.
    """

    points: NDArray[np.float64]
    diameter_mm: float
    point_mm: float


def outline_of(
    contrast: NDArray[np.float32],
    near: NDArray[np.bool_],
    drawn: NDArray[np.bool_],
    pixel_mm: float,
    noise: float,
) -> Outline:
    """The outline at the half-maximum.

    A point belongs to the nodule where it has at least half of the contrast that there is within 2 mm of it:
    of a uniform nodule that is half of its maximum; a part-solid one ends where its ground glass is half of
    itself, as readers measure it. Holes within belong to it.

    Args:
        contrast: (H, W) HU above the lung.
        near: (H, W) where the nodule may be.
        drawn: (H, W) its mask, of some pixels at least: taken where less than `SEEN` of it can be seen.
        pixel_mm: side of a pixel.
        noise: standard deviation, HU.
    """
    box, fine = _box(near), max(2, round(pixel_mm / FINE_MM))
    point_mm, corner = pixel_mm / fine, np.array([part.start for part in box])
    near, drawn = (part[box].repeat(fine, 0).repeat(fine, 1) for part in (near, drawn))
    values = zoom(contrast[box], fine, order=3, mode="nearest", grid_mode=True)
    around = maximum_filter(
        np.where(near, values, 0), 2 * max(1, round(max(REACH_MM, pixel_mm) / point_mm)) + 1
    )
    limit = np.maximum(around / 2, max(LEAST, OVER_NOISE * noise))
    inside = binary_fill_holes(_largest((values >= limit) & near, drawn))
    if (inside & drawn).sum() < SEEN * drawn.sum():
        inside, limit = drawn, np.where(drawn, -np.inf, np.inf)  # whole pixels
    down, right = np.gradient(values)
    share = np.clip(0.5 + (values - limit) / np.maximum(np.hypot(down, right), 1), 0, 1)
    cut = binary_dilation(inside) & ~binary_erosion(inside)
    area = inside[~cut].sum() + share[cut].sum()
    points = (np.argwhere(inside) + 0.5) / fine - 0.5 + corner
    return Outline(points, 2 * float(np.sqrt(area / np.pi)) * point_mm, point_mm)


def _box(near: NDArray[np.bool_], border: int = 2) -> tuple[slice, slice]:
    """What holds all of it, and a border."""
    rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
    first, second = (slice(max(int(p[0]) - border, 0), int(p[-1]) + border + 1) for p in (rows, columns))
    return first, second


def _largest(found: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The piece that has most of ``drawn``; nothing where none has any of it."""
    pieces, count = label(found)
    share = np.bincount(pieces[drawn], minlength=count + 1)[1:]
    if not share.any():
        return np.zeros_like(found)
    return pieces == 1 + int(share.argmax())
