from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.banks import SliceRecord
from bundles.lung_two_stage.extraction.fitting import AIR_HU, fit_slice, holding, resize_labels, slice_bank

RECORD = SliceRecord("a", "p", 0.0)


def test_slices_become_square_with_square_pixels() -> None:
    """60 x 40 pixels of 1 by 2 mm are 60 x 80 mm: 30 x 40 pixels of 2 mm in a square of 40."""
    hu = np.full((60, 40), -850, np.int16)
    hu[:30] = 100
    lung = np.where(hu < 0, 2, 0).astype(np.uint8)
    fitted = fit_slice(hu, lung, np.zeros_like(lung), (1.0, 2.0), 40, RECORD)
    assert fitted.hu.shape == (40, 40) and fitted.record.spacing_mm == 2.0
    assert (fitted.hu[:5] == AIR_HU).all() and (fitted.hu[35:] == AIR_HU).all()
    assert (fitted.hu[5:19] == 100).all() and (fitted.hu[21:35] == -850).all()
    assert (fitted.lung[20:35] == 2).all() and not fitted.lung[:20].any()


def test_what_lies_outside_the_scanners_field_is_air() -> None:
    hu = np.full((8, 8), -3024, np.int16)
    labels = np.zeros((8, 8), np.uint8)
    assert (fit_slice(hu, labels, labels, (1.0, 1.0), 4, RECORD).hu == AIR_HU).all()


def test_a_nodule_at_the_pleura_belongs_to_the_lung() -> None:
    lung, nodules = np.zeros((2, 10, 10), np.uint8)
    lung[2:8, 1:4], lung[2:8, 6:9] = 1, 2
    nodules[4:6, 8:10] = 3
    assert (holding(lung, nodules)[4:6, 8:10] == 2).all() and holding(lung, nodules).sum() == lung.sum() + 4
    assert not holding(np.zeros_like(lung), nodules).any()


def test_labels_fill_half_of_a_pixel_and_small_ones_stay() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[:, :8], labels[1, 13] = 1, 2
    small = resize_labels(labels, 4, 4)
    assert (small[:, :2] == 1).all() and small[0, 3] == 2 and (small > 0).sum() == 9


def test_a_bank_of_slices(tmp_path) -> None:
    empty = slice_bank([], 16)
    assert empty.hu.shape == (0, 16, 16) and empty.lung.dtype == np.uint8
    labels = np.zeros((8, 8), np.uint8)
    one = fit_slice(np.zeros((8, 8), np.int16), labels, labels, (1.5, 1.5), 16, RECORD)
    bank = slice_bank([one, one], 16)
    assert bank.hu.shape == (2, 16, 16) and bank.records[0].spacing_mm == pytest.approx(0.75)
