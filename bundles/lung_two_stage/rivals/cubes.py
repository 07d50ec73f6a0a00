"""Small cubes around points of a scan, on a grid of their own in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.nodule_scan import NoduleScan
from common.errors import UserError


@dataclass(frozen=True)
class CubeShape:
    """How much a cube shows.

    Args:
        size: voxels of a side in the plane; a multiple of 8.
        side_mm: what they extend over.
        depth: slices; 1 for patches of the plane.
        step_mm: between two of them.
    """

    size: int = 32
    side_mm: float = 32.0
    depth: int = 1
    step_mm: float = 2.0

    def __post_init__(self) -> None:
        if self.size < 8 or self.size % 8 or self.depth < 1 or min(self.side_mm, self.step_mm) <= 0:
            raise UserError(
                f"cubes of {self.depth} x {self.size} x {self.size} voxels, {self.side_mm:g} mm: "
                "give a size that is a multiple of 8, a depth of at least 1 and lengths above 0"
            )

    @property
    def steps(self) -> tuple[float, float, float]:
        """Mm between two voxels of each axis."""
        in_plane = self.side_mm / self.size
        return self.step_mm, in_plane, in_plane


def cut_cubes(
    scan: NoduleScan, centres: NDArray[np.floating], shape: CubeShape, margin: int = 0
) -> NDArray[np.int16]:
    """HU around each point, linear between voxels, the scan's edge continued: (N, D, S, S).

    Args:
        centres: (N, 3) voxels (slice, row, column).
        shape: D and S without ``margin``.
        margin: further voxels on each side in the plane, for moved crops.
    """
    lengths = (shape.depth, shape.size + 2 * margin, shape.size + 2 * margin)
    offsets = [
        (np.arange(length) - (length - 1) / 2) * step / spacing
        for length, step, spacing in zip(lengths, shape.steps, scan.spacing, strict=True)
    ]
    points = np.asarray(centres, np.float64).reshape(-1, 3)
    cubes = np.empty((len(points), *lengths), np.int16)
    for cube, point in zip(cubes, points, strict=True):
        axes = [centre + offset for centre, offset in zip(point, offsets, strict=True)]
        cube[:] = _interpolated(scan.hu, axes)
    return cubes


def _interpolated(hu: NDArray[np.int16], axes: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """The volume at the grid of the three axes' places, from the box that holds them."""
    first = [int(np.clip(np.floor(axis[0]), 0, n - 1)) for axis, n in zip(axes, hu.shape, strict=True)]
    last = [int(np.clip(np.ceil(axis[-1]), 0, n - 1)) for axis, n in zip(axes, hu.shape, strict=True)]
    box = hu[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))].astype(np.float32)
    places = np.meshgrid(*(axis - a for axis, a in zip(axes, first, strict=True)), indexing="ij")
    return np.asarray(ndimage.map_coordinates(box, places, order=1, mode="nearest"), np.float32)
