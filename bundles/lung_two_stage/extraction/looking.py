"""A scan as the extraction sees it: with its nodules' mask and, where it shows the chest, its lungs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import SliceRecord
from bundles.lung_two_stage.extraction.choosing import SliceRules, nodule_slices, normal_slices, plausible
from bundles.lung_two_stage.extraction.fitting import FittedSlice, fit_slice
from common.data.lungs import segment_lung_slice, segment_lungs
from common.data.nodule_scan import NoduleScan
from common.errors import UserError

CHEST_MM = 150.0
"""What is less wide or less deep is a part cut out around a nodule and shows no whole lungs."""
PARTIAL, UNLIKE = "scans that show no whole chest", "pictures in which no pair of lungs was found"


@dataclass(frozen=True)
class Seen:
    """A scan with what was found in it.

    Args:
        scan: HU and annotations.
        mask: uint8 (Z, H, W), the nodules to extract.
        lung: uint8 (Z, H, W) 0, 1 right, 2 left; None where the scan shows no whole lungs.
    """

    scan: NoduleScan
    mask: NDArray[np.uint8]
    lung: NDArray[np.uint8] | None

    def normals(self, rules: SliceRules) -> list[FittedSlice]:
        """Slices without nodules: neither in the mask nor annotated."""
        if self.lung is None:
            return []
        shown = self.mask | self.scan.mask
        return [self._fitted(z, rules) for z in normal_slices(self.lung, shown, rules)]

    def with_nodules(self, rules: SliceRules) -> list[FittedSlice]:
        """Slices with nodules in the mask."""
        if self.lung is None:
            return []
        return [self._fitted(z, rules) for z in nodule_slices(self.lung, self.mask, rules)]

    def _fitted(self, z: int, rules: SliceRules) -> FittedSlice:
        assert self.lung is not None
        scan = self.scan
        name = scan.name if len(scan.hu) == 1 else f"{scan.name}-z{z:03d}"
        record = SliceRecord(name, scan.patient, 0.0, scan.nominal_hu)
        return fit_slice(scan.hu[z], self.lung[z], self.mask[z], scan.spacing[1:], rules.image_size, record)


def look(scan: NoduleScan, mask: NDArray[np.uint8], skipped: Counter[str]) -> Seen:
    """Finds the scan's lungs, where it shows them; what shows none is counted in ``skipped``.

    Raises:
        UserError: a whole scan of the chest without a lung.
    """
    extent = scan.hu.shape[1] * scan.spacing[1], scan.hu.shape[2] * scan.spacing[2]
    if min(extent) < CHEST_MM:
        skipped[PARTIAL] += 1
        return Seen(scan, mask, None)
    if len(scan.hu) > 1:
        return Seen(scan, mask, segment_lungs(scan.hu, scan.spacing, name=scan.name))
    lung = _picture(scan)
    skipped[UNLIKE] += lung is None
    return Seen(scan, mask, lung)


def _picture(scan: NoduleScan) -> NDArray[np.uint8] | None:
    """The lungs of a single slice; None where there are none or what was found does not look like lungs."""
    try:
        lung = segment_lung_slice(scan.hu[0], scan.spacing[1], scan.nominal_hu, name=scan.name)
    except UserError:
        return None
    return lung[None] if plausible(lung) else None
