from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.extraction.choosing import SliceRules, nodule_slices, normal_slices, plausible
from common.errors import UserError

RULES = SliceRules(image_size=16, slices_per_patient=3, least_lung=0.5)


def stack(areas: list[int]) -> np.ndarray:
    lung = np.zeros((len(areas), 10, 10), np.uint8)
    for place, area in enumerate(areas):
        lung[place].ravel()[:area] = 1
    return lung


def test_normals_have_lung_and_no_nodule_beside_them() -> None:
    lung = stack([0, 20, 50, 90, 100, 100, 90, 60, 50, 40])
    nodules = np.zeros_like(lung)
    nodules[4, 0, 0] = 2
    assert normal_slices(lung, nodules, RULES) == [2, 7, 8]  # 3 and 5 are next to the nodule
    assert nodule_slices(lung, nodules, RULES) == [4]


def test_no_more_than_wanted_and_spread() -> None:
    lung = stack([100] * 9)
    assert normal_slices(lung, np.zeros_like(lung), RULES) == [0, 4, 8]


def test_without_lung_there_are_none() -> None:
    lung = stack([0, 0])
    assert normal_slices(lung, lung, RULES) == nodule_slices(lung, lung + 1, RULES) == []


def test_what_looks_like_lungs_in_a_picture() -> None:
    lung = np.zeros((40, 60), np.uint8)
    lung[8:32, 6:24], lung[8:32, 36:54] = 1, 2
    assert plausible(lung)
    assert not plausible(np.where(lung == 1, 1, 0).astype(np.uint8))  # one alone
    ring = np.zeros_like(lung)
    ring[[0, 39], :30] = ring[:, 0:1] = 1
    ring[[0, 39], 30:] = ring[:, 59:] = 2
    assert not plausible(ring)  # the skin's fat
    tiny = np.zeros_like(lung)
    tiny[10:14, 10:14], tiny[10:14, 40:44] = 1, 2
    assert not plausible(tiny)


def test_settings_out_of_range_are_one_line() -> None:
    with pytest.raises(UserError, match="least_lung 0"):
        SliceRules(least_lung=0)
