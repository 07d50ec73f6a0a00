from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.banks import SliceRecord
from bundles.lung_two_stage.extraction.slices import (
    AIR_HU,
    PARTIAL,
    SegmentedScan,
    SliceSettings,
    WindowBox,
    draw_windows,
    fit_slice,
    healthy_slice_indices,
    include_nodules,
    looks_like_lungs,
    make_slice_bank,
    nodule_slice_indices,
    resize_labels,
    segment_scan,
    split_for_enhancer,
    window_pixels,
)
from common.data.nodules import Nodule, NoduleScan
from common.data.samples import Sample
from common.errors import UserError

RULES = SliceSettings(image_size=16, slices_per_patient=3, least_lung=0.5)


def stack(areas: list[int]) -> np.ndarray:
    lung = np.zeros((len(areas), 10, 10), np.uint8)
    for z, area in enumerate(areas):
        lung[z].ravel()[:area] = 1
    return lung


def test_healthy_slices_have_lung_and_no_nodule_beside_them() -> None:
    lung = stack([0, 20, 50, 90, 100, 100, 90, 60, 50, 40])
    nodules = np.zeros_like(lung)
    nodules[4, 0, 0] = 2
    assert healthy_slice_indices(lung, nodules, RULES) == [2, 7, 8]  # 3 and 5 are next to the nodule
    assert nodule_slice_indices(lung, nodules, RULES) == [4]


def test_no_more_than_wanted_and_spread() -> None:
    lung = stack([100] * 9)
    assert healthy_slice_indices(lung, np.zeros_like(lung), RULES) == [0, 4, 8]


def test_without_lung_there_are_none() -> None:
    lung = stack([0, 0])
    assert healthy_slice_indices(lung, lung, RULES) == nodule_slice_indices(lung, lung + 1, RULES) == []


def test_what_looks_like_lungs_in_a_picture() -> None:
    lung = np.zeros((40, 60), np.uint8)
    lung[8:32, 6:24], lung[8:32, 36:54] = 1, 2
    assert looks_like_lungs(lung)
    assert not looks_like_lungs(np.where(lung == 1, 1, 0).astype(np.uint8))  # one alone
    ring = np.zeros_like(lung)
    ring[[0, 39], :30] = ring[:, 0:1] = 1
    ring[[0, 39], 30:] = ring[:, 59:] = 2
    assert not looks_like_lungs(ring)  # the skin's fat
    tiny = np.zeros_like(lung)
    tiny[10:14, 10:14], tiny[10:14, 40:44] = 1, 2
    assert not looks_like_lungs(tiny)


def test_settings_out_of_range_are_one_line() -> None:
    with pytest.raises(UserError, match="least_lung 0"):
        SliceSettings(least_lung=0)


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
    whole = include_nodules(lung, nodules)
    assert (whole[4:6, 8:10] == 2).all() and whole.sum() == lung.sum() + 4
    assert not include_nodules(np.zeros_like(lung), nodules).any()


def test_labels_fill_half_of_a_pixel_and_small_ones_stay() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[:, :8], labels[1, 13] = 1, 2
    small = resize_labels(labels, 4, 4)
    assert (small[:, :2] == 1).all() and small[0, 3] == 2 and (small > 0).sum() == 9


def test_a_bank_of_slices(tmp_path) -> None:
    empty = make_slice_bank([], 16)
    assert empty.hu.shape == (0, 16, 16) and empty.lung.dtype == np.uint8
    labels = np.zeros((8, 8), np.uint8)
    one = fit_slice(np.zeros((8, 8), np.int16), labels, labels, (1.5, 1.5), 16, RECORD)
    bank = make_slice_bank([one, one], 16)
    assert bank.hu.shape == (2, 16, 16) and bank.records[0].spacing_mm == pytest.approx(0.75)


SIZE, SPACING = (24, 20), (1.0, 1.2)


def windows(
    lung: np.ndarray, nodules: np.ndarray, seed: int, with_nodule: bool, size: tuple[int, int] = SIZE
) -> list[WindowBox]:
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
    rules = SliceSettings(16, part_mm=24.0)
    segmented = segment_scan(scan, scan.mask, rules, skipped)
    (held,), empty = segmented.nodule_slices(rules), segmented.healthy_slices(rules)
    assert held.hu.shape == (16, 16) and held.record.part and held.record.spacing_mm == 1.5
    assert held.record.name.startswith("p_1-at0") and held.record.patient == "p"
    assert 8 <= (held.nodules > 0).sum() <= 16 and held.lung[held.nodules > 0].all()  # of 25 / 2.25
    assert empty and not any(each.nodules.any() for each in empty)
    assert {each.record.part for each in empty} == {True} and not skipped
    again = segment_scan(scan, scan.mask, rules, skipped).healthy_slices(rules)
    assert again[0].record.name == empty[0].record.name


def test_whole_slices_of_a_part_are_left_out_and_counted() -> None:
    scan, skipped = crop(), Counter[str]()
    segmented = segment_scan(scan, scan.mask, SliceSettings(16), skipped)
    assert segmented.healthy_slices(SliceSettings(16)) == segmented.nodule_slices(SliceSettings(16)) == []
    assert skipped == {PARTIAL: 1}
    with pytest.raises(UserError, match="part_mm -1"):
        SliceSettings(part_mm=-1)


def test_windows_with_an_excluded_finding_are_not_normal_where_there_are_others() -> None:
    """Rows 7 to 13 and columns 9 to 15; or everywhere."""
    scan, rules = crop(), SliceSettings(16, part_mm=24.0)

    def corners(*findings: Nodule) -> list[tuple[int, int]]:
        segmented = segment_scan(replace(scan, excluded=findings), scan.mask, rules, Counter[str]())
        names = [normal.record.name for normal in segmented.healthy_slices(rules)]  # p_1-at000-000
        return [(int(name[6:9]), int(name[10:13])) for name in names]

    def meets(row: int, column: int) -> bool:
        return row <= 13 and column <= 15

    assert any(meets(*corner) for corner in corners())
    result = corners(Nodule((0.0, 10.0, 12.0), (0.0, 10.0, 12.0), 6.0))
    assert result and not any(meets(*corner) for corner in result)
    assert corners(Nodule((0.0, 32.0, 32.0), (0.0, 32.0, 32.0), 100.0)) == corners()


def test_slices_with_an_excluded_finding_are_not_normal_where_there_are_others() -> None:
    shape = (9, 40, 40)
    lung, mask = np.ones(shape, np.uint8), np.zeros(shape, np.uint8)
    lung[:, :, 20:] = 2
    mask[1, 5:9, 5:9] = 1
    scan = NoduleScan(np.full(shape, -850, np.int16), mask, (5.0, 8.0, 8.0), "s", "p", ())
    rules = SliceSettings(16)

    def normal(*slices: int) -> list[str]:
        result = tuple(Nodule((z, 9.0, 9.0), (z * 5.0, 72.0, 72.0), 6.0) for z in map(float, slices))
        segmented = SegmentedScan(replace(scan, excluded=result), mask, lung)
        return [one.record.name[-1] for one in segmented.healthy_slices(rules)]

    assert normal() == list("345678")
    assert normal(6) == list("348")
    assert normal(4, 7) == normal()  # none is clean: 3 and 5, 6 and 8 are next to one


def scans(*patients: str) -> list[Sample]:
    return [Sample(Path(f"{name}_{n}.mhd"), None, name) for name in patients for n in range(2)]


@pytest.mark.parametrize(("count", "kept"), [(2, 1), (3, 2), (6, 2), (10, 4), (30, 10)])
def test_a_share_of_the_patients_is_kept_and_nobody_is_twice(count: int, kept: int) -> None:
    train, test = scans(*(f"p{n:02d}" for n in range(count))), scans("t1", "t2")
    patients = split_for_enhancer(train, test, 0.3, seed=0).patients()
    assert len(patients["enhancer"]) == kept and len(patients["generation"]) == count - kept
    assert not set(patients["generation"]) & set(patients["enhancer"]) and patients["test"] == ["t1", "t2"]


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    train = scans(*(f"p{n}" for n in range(12)))
    first, turned = (split_for_enhancer(samples, [], 0.5, 0).patients() for samples in (train, train[::-1]))
    assert first == turned and first != split_for_enhancer(train, [], 0.5, 1).patients()


def test_who_is_kept_stays_kept_when_others_come() -> None:
    before, after = (
        split_for_enhancer(scans(*(f"p{n:02d}" for n in range(count))), [], 0.3, seed=0).patients()
        for count in (20, 30)
    )
    assert set(before["enhancer"]) < set(after["enhancer"])
    assert set(before["generation"]) < set(after["generation"])


def test_scans_of_one_person_stay_together() -> None:
    train = [Sample(Path(f"{n}.mhd"), None, f"scan{n}", person=f"person{n // 3}") for n in range(12)]
    parts = split_for_enhancer(train, [], 0.5, 0)
    assert (len(parts.enhancer), len(parts.generation)) == (9, 3)
    assert not {s.person for s in parts.enhancer} & {s.person for s in parts.generation}


def test_refusals_are_one_line() -> None:
    with pytest.raises(UserError, match="at least 2 are needed"):
        split_for_enhancer(scans("a"), [], 0.3, 0)
    with pytest.raises(UserError, match="share_for_enhancer 1"):
        split_for_enhancer(scans("a", "b"), [], 1, 0)
