"""Which slices of a scan go into the banks: enough lung, spread over the scan, with nodules or without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.extraction.coordinates import SIDES, lung_box
from bundles.lung_two_stage.extraction.crops import spread
from common.errors import UserError

LUNG_SHARE = 0.06, 0.75
"""Of a picture's pixels: less or more is something else than lungs."""
SMALLER_LUNG = 0.15
"""Share that the smaller lung has of both in a picture."""
FILLED = 0.3
"""Share that a lung fills of its bounding box in a picture."""


@dataclass(frozen=True)
class SliceRules:
    """How slices are chosen and brought to size.

    Args:
        image_size: side in pixels.
        slices_per_patient: most slices of a scan with nodules, and most without, spread over it.
        least_lung: lung area of a slice, as a share of the scan's largest one, from which it is taken.
        part_mm: side of the windows that stand for slices, of scans of any extent; None for whole slices.
    """

    image_size: int = 128
    slices_per_patient: int = 16
    least_lung: float = 0.4
    part_mm: float | None = None

    def __post_init__(self) -> None:
        if min(self.image_size, self.slices_per_patient) < 1 or not 0 < self.least_lung <= 1:
            raise UserError(
                f"image_size {self.image_size}, slices_per_patient {self.slices_per_patient}, least_lung "
                f"{self.least_lung}: give at least 1 pixel and slice, and a share above 0 up to 1"
            )
        if self.part_mm is not None and self.part_mm <= 0:
            raise UserError(f"part_mm {self.part_mm}: give the windows' side in mm, or null for whole slices")


def with_lung(lung: NDArray[np.uint8], rules: SliceRules) -> NDArray[np.bool_]:
    """(Z) whether each slice of a (Z, H, W) lung map shows enough lung."""
    areas = (lung > 0).sum((1, 2))
    return (areas > 0) & (areas >= rules.least_lung * areas.max())


def normal_slices(lung: NDArray[np.uint8], nodules: NDArray[np.uint8], rules: SliceRules) -> list[int]:
    """Slices with enough lung that show no nodule and are not next to one that does (it shows through)."""
    shown = np.asarray(nodules.any((1, 2)))
    near = shown.copy()
    near[:-1] |= shown[1:]
    near[1:] |= shown[:-1]
    return _spread(with_lung(lung, rules) & ~near, rules)


def nodule_slices(lung: NDArray[np.uint8], nodules: NDArray[np.uint8], rules: SliceRules) -> list[int]:
    """Slices with enough lung that show nodules."""
    return _spread(with_lung(lung, rules) & np.asarray(nodules.any((1, 2))), rules)


def plausible(lung: NDArray[np.uint8]) -> bool:
    """Whether what was found in a (H, W) picture of unknown window looks like two lungs."""
    boxes = [lung_box(lung, side) for side in SIDES]
    areas = [int((lung == side).sum()) for side in SIDES]
    if any(box is None for box in boxes) or not LUNG_SHARE[0] <= sum(areas) / lung.size <= LUNG_SHARE[1]:
        return False
    filled = min(area / box.area for area, box in zip(areas, boxes, strict=True) if box is not None)
    return min(areas) >= SMALLER_LUNG * sum(areas) and filled >= FILLED


def _spread(fitting: NDArray[np.bool_], rules: SliceRules) -> list[int]:
    places = np.flatnonzero(fitting)
    return [int(places[number]) for number in spread(len(places), rules.slices_per_patient)]
