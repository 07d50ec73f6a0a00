"""The plan: brute force finds the same; what cannot be placed is counted, what makes no sense refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.groups import draw_groups
from bundles.lung_two_stage.composition.outlines import outlines_of
from bundles.lung_two_stage.composition.planning import Rules, make_plan, placed_in
from bundles.lung_two_stage.extraction.presence import PresenceMap
from common.errors import UserError
from tests.bundles.lung_two_stage.composition.made import nodules, normals

EVEN = PresenceMap.from_points(())
RULES = Rules(count=30, groups=25, seed=3)


def large(bank: NoduleBank) -> NoduleBank:
    """Its first nodule fills the crop and is 40 mm wide."""
    alpha = bank.alpha.copy()
    alpha[0] = 255
    return NoduleBank(bank.hu, alpha, [replace(bank.records[0], spacing_mm=4.5), *bank.records[1:]])


def test_the_plan_is_what_brute_force_finds() -> None:
    bank, slices = nodules(), normals()
    plan, account = make_plan(bank, slices, EVEN, RULES)
    outlines = outlines_of(bank)
    groups = draw_groups(3, 25, outlines.usable, 3)
    every = {}
    for normal in range(len(slices)):
        for group in range(25):  # each combination on its own: the last of those up to it
            placed = placed_in(slices, normal, EVEN, groups.first(group + 1), outlines, RULES)
            every[normal * 25 + group] = float(placed.margins[-1]), placed.pixels[-1].tolist()
    best = sorted(every, key=lambda index: (-every[index][0], index))[:30]
    assert sorted(plan["index"].tolist()) == sorted(best)
    for entry in plan:
        margin, pixels = every[int(entry["index"])]
        assert entry["margin"] == np.float32(margin) and entry["pixels"].tolist() == pixels
    assert (account.combinations, account.kept) == (75, 30)


def test_the_plan_repeats_itself_and_is_shuffled() -> None:
    first, again = (make_plan(nodules(), normals(), EVEN, RULES)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (np.diff(first["index"]) < 0).any()
    other = make_plan(nodules(), normals(), EVEN, replace(RULES, seed=4))[0]
    assert (other["index"] != first["index"]).any()


def test_without_a_count_two_in_five_are_kept() -> None:
    assert len(make_plan(nodules(), normals(), EVEN, replace(RULES, count=None))[0]) == 30


def test_what_cannot_be_placed_is_counted() -> None:
    slices = normals()
    lung = slices.lung.copy()
    lung[1] = 0
    bank = large(nodules())
    bank.alpha[2] = 0
    plan, account = make_plan(
        bank, SliceBank(slices.hu, lung, slices.nodules, slices.records), EVEN, replace(RULES, count=9)
    )
    groups = draw_groups(3, 25, outlines_of(bank).usable, 3)
    assert account.too_large == 2 * int((groups.members == 0).any(axis=1).sum()) > 0
    assert account.normals_without_lung == ["slice_1"] and account.nodules_without_mask == ["nodule_2"]
    assert account.possible + account.too_large + account.no_place == 50
    assert not np.isin(plan["index"] // 25, 1).any()
    for words in ("with a nodule larger than the lung", "1 normal slices without lung"):
        assert words in account.impossible()


def test_more_than_can_be_made_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="count 76: only 75 of 75 combinations can be made; lower the count"):
        make_plan(nodules(), normals(), EVEN, replace(RULES, count=76))
    only = large(nodules()).chosen(lambda record: record.name == "nodule_0")
    for count in (5, None):
        with pytest.raises(UserError, match=r"only 0 of 75 .*\(75 with a nodule larger than the lung\)"):
            make_plan(only, normals(), EVEN, replace(RULES, count=count))


def test_the_number_of_draws_is_told_where_there_is_no_free_place() -> None:
    slices = normals(1)
    lung = np.zeros_like(slices.lung)
    lung[0, 10:13, 10:13] = 1
    tight = SliceBank(slices.hu, lung, slices.nodules, slices.records)
    _, account = make_plan(nodules(), tight, EVEN, replace(RULES, count=1, attempts=7))
    assert (
        account.no_place > 0 and f"{account.no_place} without a free place in 7 draws" in account.impossible()
    )


def test_slices_with_nodules_are_refused() -> None:
    slices = normals()
    slices.nodules[2, 15, 8] = 1
    with pytest.raises(UserError, match="normal slice slice_2: holds nodules"):
        make_plan(nodules(), slices, EVEN, RULES)
    bad = [replace(record, spacing_mm=-1.0) for record in slices.records]
    with pytest.raises(UserError, match=r"slice_0: spacing of -1\.0 mm"):
        make_plan(nodules(), SliceBank(slices.hu, slices.lung, slices.lung * 0, bad), EVEN, RULES)
