"""Windows of slices: they hold whole nodules or none, enough lung, and lie where the seed says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from bundles.lung_two_stage.extraction.choosing import SliceRules
from bundles.lung_two_stage.extraction.looking import PARTIAL, Seen, look
from bundles.lung_two_stage.extraction.windows import Window, draw_windows, window_pixels
from common.data.nodule_scan import Nodule, NoduleScan
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


def test_windows_with_an_excluded_finding_are_not_normal_where_there_are_others() -> None:
    """Rows 7 to 13 and columns 9 to 15; or everywhere."""
    scan, rules = crop(), SliceRules(16, part_mm=24.0)

    def corners(*findings: Nodule) -> list[tuple[int, int]]:
        seen = look(replace(scan, excluded=findings), scan.mask, rules, Counter[str]())
        names = [normal.record.name for normal in seen.normals(rules)]  # p_1-at000-000
        return [(int(name[6:9]), int(name[10:13])) for name in names]

    def meets(row: int, column: int) -> bool:
        return row <= 13 and column <= 15

    assert any(meets(*corner) for corner in corners())
    found = corners(Nodule((0.0, 10.0, 12.0), (0.0, 10.0, 12.0), 6.0))
    assert found and not any(meets(*corner) for corner in found)
    assert corners(Nodule((0.0, 32.0, 32.0), (0.0, 32.0, 32.0), 100.0)) == corners()


def test_slices_with_an_excluded_finding_are_not_normal_where_there_are_others() -> None:
    shape = (9, 40, 40)
    lung, mask = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    lung[:, :, 20:] = 2
    mask[1, 5:9, 5:9] = 1
    scan = NoduleScan(np.full(shape, -850, np.int16), mask, (5.0, 8.0, 8.0), "s", "p", ())
    rules = SliceRules(16)

    def normal(*slices: int) -> list[str]:
        found = tuple(Nodule((z, 9.0, 9.0), (z * 5.0, 72.0, 72.0), 6.0) for z in map(float, slices))
        return [s.record.name[-1] for s in Seen(replace(scan, excluded=found), mask, lung).normals(rules)]

    assert normal() == list("345678")
    assert normal(6) == list("348")
    assert normal(4, 7) == normal()  # none is clean: 3 and 5, 6 and 8 are next to one
