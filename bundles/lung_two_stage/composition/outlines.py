"""Where in its crop a nodule is seen, and how far it reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import NoduleBank
from bundles.lung_two_stage.composition.stamps import NODULE_ALPHA, make_stamp
from common.errors import UserError


@dataclass(frozen=True)
class Outlines:
    """The circles that hold the nodules of a bank.

    Args:
        centres: (N, 2) float64, row and column of the centre of gravity of what is seen of the nodule, see
            `bundles.lung_two_stage.composition.seeing`, in pixels of the crop.
        radii_mm: (N,) float32, from there to the far end of its farthest point; 0 of an empty mask.
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
        hu, alpha, mm = np.asarray(bank.hu[place]), np.asarray(bank.alpha[place]), record.spacing_mm
        drawn = np.argwhere(alpha >= NODULE_ALPHA)  # (P, 2)
        if not len(drawn):
            continue
        middle = np.rint(drawn.mean(axis=0))  # on a pixel: the stamp is the crop as it is
        stamp = make_stamp(hu, alpha, middle, mm, mm)
        points, half = stamp.outline.points + middle - stamp.hu.shape[0] // 2, stamp.outline.point_mm / 2
        centres[place] = points.mean(axis=0)
        radii[place] = np.hypot(*(points - centres[place]).T).max() * mm + half
    if not radii.any():
        raise UserError("nodules: none of the bank has a mask (alpha of at least a half); make it again")
    return Outlines(centres, radii)
