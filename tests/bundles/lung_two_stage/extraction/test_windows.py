"""Windows of slices: they hold whole nodules or none, enough lung, and lie where the seed says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bundles.lung_two_stage.extraction.choosing import SliceRules
from bundles.lung_two_stage.extraction.looking import PARTIAL, look
from bundles.lung_two_stage.extraction.windows import Window, draw_windows, window_pixels
from common.data.nodule_scan import NoduleScan
from common.errors import UserError

SIZE, SPACING = (24, 20), (1.0, 1.2)


def windows(
    lung: np.ndarray, nodules: np.ndarray, seed: int, with_nodule: bool, size: tuple[int, int] = SIZE
) -> list[Window]:
    return draw_windows(lung, nodules, size, SPACING, np.random.default_rng(seed), with_nodule)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Lung left of column 60, a nodule of 5 x 6 pixels in it."""
    lung, nodules = np.zeros((80, 90), np.uint8), np.zeros((80, 90), np.uint8)
    lung[:, :60], nodules[40:45, 30:36] = 1, 2
    return lung, nodules


def test_a_window_in_mm() -> None:
    assert window_pixels(24.0, SPACING) == SIZE


def test_windows_with_a_nodule_hold_all_of_it_with_a_margin_and_lie_anywhere() -> None:
    lung, nodules = scene()
    corners = set()
    for seed in range(200):
        (window,) = windows(lung, nodules, seed, True)
        assert nodules[window].shape == SIZE and (nodules[window] > 0).sum() == 30
        assert not nodules[window][:2].any() and not nodules[window][:, -1:].any()
        corners.add((window[0].start, window[1].start))
    rows, columns = (sorted({corner[axis] for corner in corners}) for axis in (0, 1))
    assert (rows[0], rows[-1]) == (40 + 5 + 3 - 24, 40 - 3)  # more than 2 mm: 3 rows, or 2 columns
    assert (columns[0], columns[-1]) == (36 + 2 - 20, 30 - 2)


def test_windows_without_have_lung_no_nodule_and_are_apart() -> None:
    lung, nodules = scene()
    for seed in range(100):
        first, second = windows(lung, nodules, seed, False)
        for window in (first, second):
            assert not nodules[window].any() and (lung[window] > 0).mean() >= 0.3
        apart = [abs(a.start - b.start) / size for a, b, size in zip(first, second, SIZE, strict=True)]
        assert max(apart) >= 0.5
    assert windows(lung, nodules, 99, False) == [first, second]


def test_where_no_window_is_fit_there_is_none() -> None:
    lung, nodules = scene()
    assert not windows(lung, nodules, 0, True, (8, 7))  # smaller than nodule and margin
    assert not windows(np.zeros_like(lung), np.zeros_like(lung), 0, False)
    assert not windows(lung, nodules, 0, False, (100, 20))  # larger than the slice
    assert not windows(lung, np.ones_like(nodules), 0, False)


def crop(name: str = "p_1") -> NoduleScan:
    """A picture of 64 mm with a wall at the right and a nodule in the middle."""
    hu = np.random.default_rng(0).normal(-850, 20, (1, 64, 64))
    hu[:, :, 52:] = 40
    mask = np.zeros(hu.shape, np.uint8)
    mask[:, 30:35, 30:35] = 1
    return NoduleScan(np.where(mask, 20, hu).astype(np.int16), mask, (1.0, 1.0, 1.0), name, "p", ())


def test_a_part_of_the_chest_gives_windows_where_they_are_wanted() -> None:
    scan, skipped = crop(), Counter[str]()
    rules = SliceRules(16, part_mm=24.0)
    seen = look(scan, scan.mask, rules, skipped)
    (held,), empty = seen.with_nodules(rules), seen.normals(rules)
    assert held.hu.shape == (16, 16) and held.record.part and held.record.spacing_mm == 1.5
    assert held.record.name.startswith("p_1-at0") and held.record.patient == "p"
    assert 8 <= (held.nodules > 0).sum() <= 16 and held.lung[held.nodules > 0].all()  # of 25 / 2.25
    assert empty and not any(each.nodules.any() for each in empty)
    assert {each.record.part for each in empty} == {True} and not skipped
    assert look(scan, scan.mask, rules, skipped).normals(rules)[0].record.name == empty[0].record.name


def test_whole_slices_of_a_part_are_left_out_and_counted() -> None:
    scan, skipped = crop(), Counter[str]()
    seen = look(scan, scan.mask, SliceRules(16), skipped)
    assert seen.normals(SliceRules(16)) == seen.with_nodules(SliceRules(16)) == []
    assert skipped == {PARTIAL: 1}
    with pytest.raises(UserError, match="part_mm -1"):
        SliceRules(part_mm=-1)
