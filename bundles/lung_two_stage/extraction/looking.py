"""A scan as the extraction sees it: with its nodules' mask and its lungs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import SliceRecord
from bundles.lung_two_stage.extraction.choosing import SliceRules, nodule_slices, normal_slices, plausible
from bundles.lung_two_stage.extraction.crops import spread
from bundles.lung_two_stage.extraction.fitting import FittedSlice, fit_slice
from bundles.lung_two_stage.extraction.windows import Window, draw_windows, window_pixels
from common.data.lungs import segment_lung_part, segment_lung_slice, segment_lungs
from common.data.nodule_scan import NoduleScan
from common.errors import UserError
from common.random import generator

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
        aerated: uint8 (Z, H, W) 0, 1 the lung in a scan of a part of the chest, where windows are cut.
    """

    scan: NoduleScan
    mask: NDArray[np.uint8]
    lung: NDArray[np.uint8] | None
    aerated: NDArray[np.uint8] | None = None

    def normals(self, rules: SliceRules) -> list[FittedSlice]:
        """Slices, or windows of them, without nodules: neither in the mask nor annotated.

        Those with an excluded finding are taken only from scans that have no others.
        """
        shown = self.mask | self.scan.mask
        found = self._without(rules, shown | self.scan.excluded_mask()) if self.scan.excluded else []
        return found or self._without(rules, shown)

    def _without(self, rules: SliceRules, shown: NDArray[np.uint8]) -> list[FittedSlice]:
        if rules.part_mm is not None:
            return self._windows(rules, shown, with_nodule=False)
        if self.lung is None:
            return []
        return [self._fitted(z, self.lung, rules) for z in normal_slices(self.lung, shown, rules)]

    def with_nodules(self, rules: SliceRules) -> list[FittedSlice]:
        """Slices, or windows of them, with nodules in the mask."""
        if rules.part_mm is not None:
            return self._windows(rules, self.mask, with_nodule=True)
        if self.lung is None:
            return []
        return [self._fitted(z, self.lung, rules) for z in nodule_slices(self.lung, self.mask, rules)]

    def _windows(
        self, rules: SliceRules, nodules: NDArray[np.uint8], with_nodule: bool
    ) -> list[FittedSlice]:
        lung = self.aerated if self.lung is None else self.lung
        if lung is None or rules.part_mm is None:
            return []
        spacing, found = self.scan.spacing[1:], list[FittedSlice]()
        places = np.flatnonzero((nodules if with_nodule else lung).any((1, 2)))
        size = window_pixels(rules.part_mm, spacing)
        for z in places[spread(len(places), rules.slices_per_patient)] if len(places) else ():
            random = generator(0, "windows", self.scan.name, int(z))
            for window in draw_windows(lung[z], nodules[z], size, spacing, random, with_nodule):
                found.append(self._fitted(int(z), lung, rules, window))
        return found

    def _fitted(
        self, z: int, lung: NDArray[np.uint8], rules: SliceRules, window: Window | None = None
    ) -> FittedSlice:
        scan, there = self.scan, window or np.s_[:, :]
        name = scan.name if len(scan.hu) == 1 else f"{scan.name}-z{z:03d}"
        if window is not None:
            name += f"-at{window[0].start:03d}-{window[1].start:03d}"
        record = SliceRecord(name, scan.patient, 0.0, scan.nominal_hu, part=window is not None)
        return fit_slice(
            scan.hu[z][there],
            lung[z][there],
            self.mask[z][there],
            scan.spacing[1:],
            rules.image_size,
            record,
        )


def look(scan: NoduleScan, mask: NDArray[np.uint8], rules: SliceRules, skipped: Counter[str]) -> Seen:
    """Finds the scan's lungs, where it shows them; what shows none is counted in ``skipped``.

    Args:
        rules: whether parts of the chest are wanted.

    Raises:
        UserError: a whole scan of the chest without a lung.
    """
    extent = scan.hu.shape[1] * scan.spacing[1], scan.hu.shape[2] * scan.spacing[2]
    if min(extent) < CHEST_MM:
        if rules.part_mm is not None:
            return Seen(scan, mask, None, _aerated(scan))
        skipped[PARTIAL] += 1
        return Seen(scan, mask, None)
    if len(scan.hu) > 1:
        return Seen(scan, mask, segment_lungs(scan.hu, scan.spacing, name=scan.name))
    lung = _picture(scan)
    skipped[UNLIKE] += lung is None
    return Seen(scan, mask, lung)


def _aerated(scan: NoduleScan) -> NDArray[np.uint8]:
    return np.stack([segment_lung_part(plane, scan.spacing[1], scan.nominal_hu) for plane in scan.hu])


def _picture(scan: NoduleScan) -> NDArray[np.uint8] | None:
    """The lungs of a single slice; None where there are none or what was found does not look like lungs."""
    try:
        lung = segment_lung_slice(scan.hu[0], scan.spacing[1], scan.nominal_hu, name=scan.name)
    except UserError:
        return None
    return lung[None] if plausible(lung) else None
