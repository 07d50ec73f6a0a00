"""Lung in a part of a slice: found by HU or by a picture's own contrast, with vessels, without wall."""

from __future__ import annotations

import numpy as np

from common.data.lungs import segment_lung_part


def part() -> tuple[np.ndarray, np.ndarray]:
    """60 x 50 mm of lung with a vessel and a nodule beside 15 mm of chest wall with a bubble of gas."""
    random = np.random.default_rng(0)
    hu = random.normal(-850, 30, (60, 65))
    hu[:, 50:] = random.normal(40, 30, (60, 15))
    hu[20:23, :] = 30  # a vessel from the wall right through
    hu[40:46, 10:16] = 50  # a nodule
    hu[5:9, 55:59] = -900  # 0.16 cm2 of gas
    expected = np.zeros(hu.shape, np.uint8)
    expected[:, :50] = 1
    return hu, expected


def test_vessels_and_nodules_belong_to_the_lung_and_the_wall_does_not() -> None:
    hu, expected = part()
    found = segment_lung_part(hu, 1.0)
    assert found.dtype == np.uint8 and (found != expected).mean() < 0.01
    assert found[41:45, 11:15].all() and not found[:, 52:].any()


def test_a_picture_of_unknown_window_gets_a_threshold_of_its_own() -> None:
    """All lung is above -400 in this one."""
    hu, expected = part()
    lighter = -1000 + (hu + 1000) * 0.5 + 550
    assert not segment_lung_part(lighter, 1.0).any()
    assert (segment_lung_part(lighter, 1.0, nominal_hu=True) != expected).mean() < 0.02


def test_soft_tissue_alone_has_none() -> None:
    assert not segment_lung_part(np.full((20, 20), 40), 1.0).any()
