"""Places in a lung, comparable between patients: relative to the lung's bounding box in the slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RIGHT, LEFT = 1, 2
"""Values of lung maps."""
SIDES = (RIGHT, LEFT)


@dataclass(frozen=True)
class LungPoint:
    """A place in one of the two lungs.

    Args:
        side: `RIGHT` or `LEFT`.
        down: 0 at the front edge of the lung's bounding box, 1 at its back edge.
        across: 0 at the edge towards the patient's right (smaller columns), 1 at the other one. It is not
            mirrored: the hilum is near 1 in the right lung and near 0 in the left one.
    """

    side: int
    down: float
    across: float


@dataclass(frozen=True)
class LungBox:
    """Bounding box of one lung in a slice: rows ``top`` to ``bottom`` and columns, the last not included."""

    top: int
    bottom: int
    first: int
    last: int

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.bottom - self.top) * (self.last - self.first)

    def relative(self, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.float64]:
        """(2, ...) places down and across, 0 to 1, of pixel coordinates (whole numbers are pixel centres)."""
        down = (np.asarray(rows, np.float64) - self.top + 0.5) / (self.bottom - self.top)
        across = (np.asarray(columns, np.float64) - self.first + 0.5) / (self.last - self.first)
        return np.clip(np.stack([down, across]), 0.0, 1.0)


def lung_box(lung: NDArray[np.uint8], side: int) -> LungBox | None:
    """The box of one lung in a (H, W) lung map; None where the slice does not show it."""
    inside = lung == side
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    return LungBox(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def lung_point(lung: NDArray[np.uint8], row: float, column: float) -> LungPoint | None:
    """Where a pixel lies in the lung that is nearest to it; None where the slice shows no lung.

    Args:
        lung: (H, W) 0 outside, 1 right, 2 left.
        row, column: place in pixels, e.g. a nodule's centre.
    """
    inside = np.argwhere(lung > 0)
    if not len(inside):
        return None
    nearest = inside[np.argmin(((inside - (row, column)) ** 2).sum(1))]
    side = int(lung[tuple(nearest)])
    box = lung_box(lung, side)
    assert box is not None  # it holds at least the nearest pixel
    down, across = box.relative(np.array(row), np.array(column))
    return LungPoint(side, float(down), float(across))
