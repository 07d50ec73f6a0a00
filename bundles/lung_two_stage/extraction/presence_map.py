"""The probability map of nodule presence: where in a lung nodules lie, learned from annotated ones."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from common.errors import UserError
from common.files import atomic_write

RIGHT, LEFT = 1, 2
"""Values of lung maps."""
SIDES = (RIGHT, LEFT)


@dataclass(frozen=True)
class LungPoint:
    """A position relative to the bounding box of one of the two lungs.

    Args:
        side: `RIGHT` or `LEFT`.
        down: 0 at the front edge of the box, 1 at its back edge.
        across: 0 at the edge towards the patient's right (smaller columns), 1 at the other one. Not
            mirrored: the hilum is near 1 in the right lung and near 0 in the left one.
    """

    side: int
    down: float
    across: float


@dataclass(frozen=True)
class LungBox:
    """Bounding box of one lung in a slice: rows ``top`` to ``bottom`` and columns, last ones excluded."""

    top: int
    bottom: int
    first: int
    last: int

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.last - self.first)

    def relative(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
        """Positions (2, ...) down and across in [0, 1] of pixel coordinates; integers are pixel centres."""
        down = (np.asarray(rows, np.float64) - self.top + 0.5) / (self.bottom - self.top)
        across = (np.asarray(columns, np.float64) - self.first + 0.5) / (self.last - self.first)
        return np.clip(np.stack([down, across]), 0.0, 1.0)


def find_lung_box(lung: NDArray[np.uint8], side: int) -> LungBox | None:
    """Bounding box of one lung in a (H, W) lung map; None if the slice does not show it."""
    inside = lung == side
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    return LungBox(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def locate_in_lung(lung: NDArray[np.uint8], row: float, column: float) -> LungPoint | None:
    """Position of a pixel in the lung that is nearest to it; None if the slice shows no lung.

    Args:
        lung: (H, W) 0 outside, 1 right, 2 left.
        row, column: position in pixels, e.g. a nodule's centre.
    """
    inside = np.argwhere(lung > 0)
    if not len(inside):
        return None
    nearest = inside[np.argmin(((inside - (row, column)) ** 2).sum(1))]
    side = int(lung[tuple(nearest)])
    box = find_lung_box(lung, side)
    assert box is not None  # it holds at least the nearest pixel
    down, across = box.relative(np.array(row), np.array(column))
    return LungPoint(side, float(down), float(across))


CELLS = 64
EVEN = 12**-0.5
"""Standard deviation of a uniform distribution over [0, 1]."""
PRIOR = 2.0


@dataclass(frozen=True)
class PresenceMap:
    """Probability of a nodule's centre at each position in each lung (Chi 2023, stage 1).

    **Coordinates.** Slices are upright: row 0 at the front of the patient, column 0 at the patient's right;
    lung maps hold 0 outside, 1 right, 2 left lung. Each lung has a grid over its bounding box in the slice:
    ``density[0]`` is the right lung, ``density[1]`` the left one; axis 1 runs from front to back, axis 2 from
    the patient's right to left (not mirrored). Cell (i, j) covers i/G..(i+1)/G of the box's height,
    j/G..(j+1)/G of its width. The slice's height in the chest does not matter.

    Example:
        >>> presence = PresenceMap.from_points([LungPoint(RIGHT, down=0.8, across=0.5)], cells=4, prior=1.0)
        >>> [round(float(side.sum()), 2) for side in presence.density]
        [0.75, 0.25]

    Args:
        density: (2, G, G) float64, sums to 1 over both lungs.
        metadata: how it was made, plain JSON: number of ``nodules``, ``bandwidth``, ``prior``.
    """

    density: NDArray[np.float64]
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_points(
        cls,
        points: Sequence[LungPoint],
        cells: int = CELLS,
        bandwidth: float | None = None,
        prior: float = PRIOR,
    ) -> PresenceMap:
        """Estimates the density from nodule centres: a histogram, smoothed, plus a uniform prior.

        Args:
            points: nodule centres; without any the density is uniform.
            cells: G.
            bandwidth: standard deviation of the Gaussian, as a share of the box; None for the rule of Scott
                and Silverman in two dimensions (the standard deviation of the points, here of uniform ones,
                times their number to the power -1/6). It is reflected at the box's edges.
            prior: weight of the uniform density in nodules, so that no position is impossible.
        Raises:
            UserError: a setting is out of range.
        """
        if bandwidth is None:
            bandwidth = EVEN * max(1, len(points)) ** (-1 / 6)
        if cells < 2 or bandwidth < 0 or prior <= 0:
            raise UserError(
                f"presence: cells {cells}, bandwidth {bandwidth}, prior {prior}; give at least 2 cells, "
                "a bandwidth of 0 or more and a prior above 0"
            )
        counts = np.zeros((len(SIDES), cells, cells))
        for point in points:
            down, across = (min(int(share * cells), cells - 1) for share in (point.down, point.across))
            counts[SIDES.index(point.side), down, across] += 1
        smooth = np.stack([gaussian_filter(side, bandwidth * cells, mode="reflect") for side in counts])
        density = smooth + prior / counts.size
        how = {"nodules": len(points), "bandwidth": float(bandwidth), "prior": float(prior)}
        return cls(density / density.sum(), how)

    def on_slice(self, lung: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probability that a nodule's centre lies in each pixel of a slice.

        A lung's share does not depend on its size in the slice; a single lung gets all of it.

        Args:
            lung: (H, W) 0 outside, 1 right, 2 left.
        Returns:
            (H, W) float32: sums to 1 over the parenchyma (right and left together), 0 outside.
        Raises:
            UserError: the slice shows no lung.
        """
        weights = np.zeros(lung.shape, np.float64)
        for side, grid in zip(SIDES, self.density, strict=True):
            box = find_lung_box(lung, side)
            if box is not None:
                rows, columns = np.nonzero(lung == side)
                cells = box.relative(rows, columns) * len(grid) - 0.5  # (2, P)
                weights[rows, columns] = map_coordinates(grid, cells, order=1, mode="nearest") / box.area
        total = weights.sum()
        if total <= 0:
            raise UserError("presence: the slice shows no lung; leave such slices out")
        return (weights / total).astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes ``density`` and ``metadata`` (JSON text) as .npz, atomically."""
        target = Path(path)
        with atomic_write(target) as temporary:
            np.savez(temporary, density=self.density, metadata=np.array(json.dumps(self.metadata)))
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PresenceMap:
        """Reads what `save` wrote.

        Raises:
            UserError: no such file, damaged, or something else.
        """
        if not Path(path).is_file():
            raise UserError(f"{path}: no presence map here; run the extraction first")
        try:
            with np.load(path, allow_pickle=False) as content:
                density, metadata = content["density"], json.loads(str(content["metadata"]))
        except Exception as error:  # zip, zlib, numpy and JSON have errors of their own
            raise UserError(f"{path}: cannot be read ({error}); run the extraction again") from error
        if density.ndim != 3 or len(density) != len(SIDES) or not density.sum() > 0:
            raise UserError(f"{path}: is no presence map; run the extraction again")
        return cls(density, metadata)
