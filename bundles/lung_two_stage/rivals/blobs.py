"""Where a nodule might be, without learning: bright blobs beside air (Laplacian of Gaussian).

Lindeberg, Feature detection with automatic scale selection, IJCV 1998: the response of a bright ball of
radius r is greatest at sigma = r / sqrt(dimensions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RADII = (2.0, 3.0, 4.5, 6.5, 9.5, 14.0)
"""In mm."""
AIR = -500
"""HU below which tissue is aerated."""
SURROUNDINGS = 15.0
"""Half the side of the box in mm in which some of it must be."""
SOFT_TISSUE = 100.0
"""HU above which it does not matter how bright: bone would outshine nodules."""


@dataclass(frozen=True)
class Blobs:
    """Points that may be nodules, the most blob-like first.

    Args:
        centres: (N, 3) whole voxels (slice, row, column).
        radii: (N,) mm.
        strengths: (N,) HU of contrast, scale by scale comparable.
    """

    centres: NDArray[np.int64]
    radii: NDArray[np.float64]
    strengths: NDArray[np.float64]


def find_blobs(
    hu: NDArray[np.int16],
    spacing: Sequence[float],
    least: float = 100.0,
    most: int = 200,
    air_share: float = 0.1,
    radii: Sequence[float] = RADII,
) -> Blobs:
    """Local maxima over space and scale.

    Args:
        hu: (Z, H, W); a picture has one slice and is searched in its plane.
        spacing: mm of its axes.
        least: strength that counts, HU.
        most: points at most.
        air_share: of the surroundings' voxels must be aerated.
        radii: that are looked for, mm.
    """
    tissue = np.minimum(hu, np.int16(SOFT_TISSUE)).astype(np.float32)
    strength, scale = _strongest(tissue, spacing, radii)
    extents = [1 if length == 1 else 3 for length in hu.shape]
    peaks = (strength >= least) & (strength == ndimage.maximum_filter(strength, size=extents))
    sides = [1 + 2 * int(SURROUNDINGS / step) for step in spacing]
    aired = ndimage.uniform_filter((hu < AIR).astype(np.float32), sides, mode="nearest")
    centres = np.argwhere(peaks & (aired >= air_share))
    found = strength[tuple(centres.T)]
    order = np.argsort(-found, kind="stable")[:most]
    chosen = centres[order]
    sizes = np.asarray(radii, np.float64)[scale[tuple(chosen.T)]]
    return Blobs(chosen, sizes, found[order].astype(np.float64))


def _strongest(
    tissue: NDArray[np.float32], spacing: Sequence[float], radii: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The greatest response of each voxel over the scales, and the scale's number."""
    extended = [axis for axis, length in enumerate(tissue.shape) if length > 1]
    best, scale = np.full(tissue.shape, -np.inf, np.float32), np.zeros(tissue.shape, np.uint8)
    for number, radius in enumerate(radii):
        sigma = radius / np.sqrt(len(extended))
        response = _response(tissue, spacing, extended, sigma)
        larger = response > best
        best[larger], scale[larger] = response[larger], number
    return best, scale


def _response(
    tissue: NDArray[np.float32], spacing: Sequence[float], extended: Sequence[int], sigma: float
) -> NDArray[np.float32]:
    """Minus the Laplacian at ``sigma`` mm, times sigma squared: comparable between scales."""
    total = np.zeros_like(tissue)
    widths = [sigma / spacing[axis] if axis in extended else 0.0 for axis in range(tissue.ndim)]
    for axis in extended:
        orders = [2 if other == axis else 0 for other in range(tissue.ndim)]
        total -= ndimage.gaussian_filter(tissue, widths, orders, mode="nearest", truncate=3.0) * np.float32(
            widths[axis] ** 2
        )
    return total
