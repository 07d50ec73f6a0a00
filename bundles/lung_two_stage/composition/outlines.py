"""Where in its crop a nodule lies, and how far it reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import NoduleBank
from common.errors import UserError

NODULE_ALPHA = 128
"""Alpha (of 255) from which a pixel counts as nodule: half of it is."""


@dataclass(frozen=True)
class Outlines:
    """The circles that hold the nodules of a bank.

    Args:
        centres: (N, 2) float64, row and column of the mask's centre of gravity, in pixels of the crop.
        radii_mm: (N,) float32, from there to the far end of the mask's farthest pixel; 0 of an empty mask.
    """

    centres: NDArray[np.float64]
    radii_mm: NDArray[np.float32]

    @property
    def usable(self) -> NDArray[np.int64]:
        """The nodules that have a mask."""
        return np.flatnonzero(self.radii_mm > 0)


def outlines_of(bank: NoduleBank) -> Outlines:
    """Measures every nodule of a bank.

    Raises:
        UserError: none has a mask, a spacing makes no sense, or images and alphas differ in shape.
    """
    if bank.hu.shape != bank.alpha.shape:
        raise UserError("nodules: crops and alphas differ in shape; make the bank again")
    centres, radii = np.zeros((len(bank), 2)), np.zeros(len(bank), np.float32)
    for place, record in enumerate(bank.records):
        if not 0 < record.spacing_mm < np.inf:
            raise UserError(f"nodule {record.name}: spacing of {record.spacing_mm} mm; give one above 0")
        points = np.argwhere(bank.alpha[place] >= NODULE_ALPHA)  # (P, 2)
        if len(points):
            centres[place] = points.mean(axis=0)
            farthest = np.sqrt(((points - centres[place]) ** 2).sum(axis=1).max())
            radii[place] = (farthest + 0.5) * record.spacing_mm
    if not radii.any():
        raise UserError("nodules: none of the bank has a mask (alpha of at least a half); make it again")
    return Outlines(centres, radii)
