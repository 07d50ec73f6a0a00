"""The plan: brute force finds the same; what cannot be placed is counted, what makes no sense refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank
from bundles.lung_two_stage.composition.plan import (
    FLIP_ROTS,
    NONE,
    Farthest,
    Groups,
    LungField,
    PlanSettings,
    draw_groups,
    make_plan,
    measure_nodules,
    place_groups,
    place_in_slice,
)
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.errors import UserError
from tests.bundles.lung_two_stage.composition.made import disc, healthy_slices, nodules

EVEN = PresenceMap.from_points(())
RULES = PlanSettings(count=30, groups=25, seed=3)


def large(bank: NoduleBank) -> NoduleBank:
    """Its first nodule fills the crop and is 40 mm wide."""
    alpha = bank.alpha.copy()
    alpha[0] = 255
    return NoduleBank(bank.hu, alpha, [replace(bank.records[0], spacing_mm=4.5), *bank.records[1:]])


def test_the_plan_is_what_brute_force_finds() -> None:
    bank, slices = nodules(), healthy_slices()
    plan, stats = make_plan(bank, slices, EVEN, RULES)
    geometry = measure_nodules(bank)
    groups = draw_groups(3, 25, geometry.usable, 3)
    every = {}
    for normal in range(len(slices)):
        for group in range(25):  # each combination on its own: the last of those up to it
            placed = place_in_slice(slices, normal, EVEN, groups.first(group + 1), geometry, RULES)
            every[normal * 25 + group] = float(placed.margins[-1]), placed.pixels[-1].tolist()
    best = sorted(every, key=lambda index: (-every[index][0], index))[:30]
    assert sorted(plan["index"].tolist()) == sorted(best)
    for entry in plan:
        margin, pixels = every[int(entry["index"])]
        assert entry["margin"] == np.float32(margin) and entry["pixels"].tolist() == pixels
    assert (stats.combinations, stats.kept) == (75, 30)


def test_the_plan_repeats_itself_and_is_shuffled() -> None:
    first, again = (make_plan(nodules(), healthy_slices(), EVEN, RULES)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (np.diff(first["index"]) < 0).any()
    other = make_plan(nodules(), healthy_slices(), EVEN, replace(RULES, seed=4))[0]
    assert (other["index"] != first["index"]).any()


def test_without_a_count_two_in_five_are_kept() -> None:
    assert len(make_plan(nodules(), healthy_slices(), EVEN, replace(RULES, count=None))[0]) == 30


def test_what_cannot_be_placed_is_counted() -> None:
    slices = healthy_slices()
    lung = slices.lung.copy()
    lung[1] = 0
    bank = large(nodules())
    bank.alpha[2] = 0
    plan, stats = make_plan(
        bank, SliceBank(slices.hu, lung, slices.nodules, slices.records), EVEN, replace(RULES, count=9)
    )
    groups = draw_groups(3, 25, measure_nodules(bank).usable, 3)
    assert stats.too_large == 2 * int((groups.members == 0).any(axis=1).sum()) > 0
    assert stats.slices_without_lung == ["slice_1"] and stats.nodules_without_mask == ["nodule_2"]
    assert stats.possible + stats.too_large + stats.no_place == 50
    assert not np.isin(plan["index"] // 25, 1).any()
    for words in ("with a nodule larger than the lung", "1 healthy slices without lung"):
        assert words in stats.failures()


def test_more_than_can_be_made_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="count 76: only 75 of 75 combinations can be made; lower the count"):
        make_plan(nodules(), healthy_slices(), EVEN, replace(RULES, count=76))
    only = large(nodules()).select(lambda record: record.name == "nodule_0")
    for count in (5, None):
        with pytest.raises(UserError, match=r"only 0 of 75 .*\(75 with a nodule larger than the lung\)"):
            make_plan(only, healthy_slices(), EVEN, replace(RULES, count=count))


def test_the_number_of_draws_is_told_where_there_is_no_free_place() -> None:
    slices = healthy_slices(1)
    lung = np.zeros_like(slices.lung)
    lung[0, 10:13, 10:13] = 1
    tight = SliceBank(slices.hu, lung, slices.nodules, slices.records)
    _, stats = make_plan(nodules(), tight, EVEN, replace(RULES, count=1, attempts=7))
    assert stats.no_place > 0 and f"{stats.no_place} without a free position in 7 draws" in stats.failures()


def test_slices_with_nodules_are_refused() -> None:
    slices = healthy_slices()
    slices.nodules[2, 15, 8] = 1
    with pytest.raises(UserError, match="healthy slice slice_2: holds nodules"):
        make_plan(nodules(), slices, EVEN, RULES)
    bad = [replace(record, spacing_mm=-1.0) for record in slices.records]
    with pytest.raises(UserError, match=r"slice_0: spacing of -1\.0 mm"):
        make_plan(nodules(), SliceBank(slices.hu, slices.lung, slices.lung * 0, bad), EVEN, RULES)


RADII = np.array([1.0, 2.0, 3.0], np.float32)


def even(lung: np.ndarray) -> np.ndarray:
    return (lung / lung.sum()).astype(np.float32)


def field(lung: np.ndarray, spacing_mm: float = 1.0) -> LungField:
    return LungField.from_slice(lung, even(lung), spacing_mm)


def group(*members: int) -> Groups:
    array = np.array([members], np.int32)
    return Groups(array, np.zeros_like(array, np.uint8))


def test_depths_are_mm_to_the_edge_and_the_border_is_one() -> None:
    lung = np.zeros((5, 9), np.uint8)
    lung[:, :7] = 1  # open to three sides
    lung_field = field(lung, 0.5)
    depths = dict(zip(lung_field.pixels.tolist(), lung_field.depths.tolist(), strict=True))
    assert depths[2 * 9 + 3] == pytest.approx(2.5 * 0.5)  # middle row: 2 rows to the border, and half a pixel
    assert depths[0] == pytest.approx(0.25) and depths[2 * 9 + 6] == pytest.approx(0.25)


def test_places_follow_the_presence() -> None:
    lung = np.ones((4, 4), np.uint8)
    presence = np.zeros((4, 4), np.float32)
    presence[1, 2], presence[3, 0] = 0.75, 0.25
    lung_field = LungField.from_slice(lung, presence, 1.0)
    drawn = lung_field.pixels[lung_field.draw(np.random.default_rng(0).random(4000))]
    assert set(drawn.tolist()) == {6, 12} and np.mean(drawn == 6) == pytest.approx(0.75, abs=0.03)


def test_nodules_lie_inside_and_apart_and_the_margin_is_the_least() -> None:
    lung = np.zeros((40, 40), np.uint8)
    lung[3:37, 5:30] = 1
    lung_field, groups = field(lung), draw_groups(0, 200, np.arange(3), 3)
    placed = place_groups(groups, RADII, lung_field, seed=0, number=4, attempts=100)
    depth = dict(zip(lung_field.pixels.tolist(), lung_field.depths.tolist(), strict=True))
    assert np.isfinite(placed.margins).all() and not placed.too_large.any()
    for members, pixels, margin in zip(groups.members, placed.pixels, placed.margins, strict=True):
        chosen = [(int(p), float(RADII[m])) for m, p in zip(members, pixels, strict=True) if m >= 0]
        assert margin == pytest.approx(min(depth[p] - r for p, r in chosen)) and margin >= 0
        for n, (p, r) in enumerate(chosen):
            for q, s in chosen[:n]:
                assert np.hypot(p // 40 - q // 40, p % 40 - q % 40) >= r + s
        assert (pixels[members < 0] == NONE).all()


def test_a_group_is_placed_alike_whatever_follows_it() -> None:
    lung_field, groups = field(np.ones((30, 30), np.uint8)), draw_groups(0, 50, np.arange(3), 3)
    every = place_groups(groups, RADII, lung_field, 0, 2, 50)
    few = place_groups(groups.first(8), RADII, lung_field, 0, 2, 50)
    np.testing.assert_array_equal(every.pixels[:8], few.pixels)
    other = place_groups(groups.first(8), RADII, lung_field, 0, 3, 50)
    assert (other.pixels != few.pixels).any()


def test_a_nodule_larger_than_the_lung_and_two_that_do_not_fit_are_given_up() -> None:
    lung = np.zeros((20, 20), np.uint8)
    lung[8:12, 8:12] = 1  # depths of 0.5 and 1.5 pixels
    lung_field = field(lung)
    large = place_groups(group(1), RADII, lung_field, 0, 0, attempts=10**9)  # would never end if it tried
    assert large.too_large.tolist() == [True] and large.margins.tolist() == [-np.inf]
    both = place_groups(group(0, 0), RADII, lung_field, 0, 0, attempts=30)
    assert both.too_large.tolist() == [False] and both.margins.tolist() == [-np.inf]
    one = place_groups(group(0), RADII, lung_field, 0, 0, attempts=30)
    assert one.margins.tolist() == [0.5]


KIND = np.dtype([("index", "<i8"), ("margin", "<f4")])


def brute_force(margins: np.ndarray, count: int) -> list[int]:
    """Sorted by margin, the largest first, then by place."""
    order = sorted(range(len(margins)), key=lambda index: (-margins[index], index))
    return sorted(order[:count])


@pytest.mark.parametrize("count", [0, 1, 17, 99, 100, 120])
def test_ties_go_to_the_first(count: int) -> None:
    candidates = np.empty(100, KIND)
    candidates["index"], margins = np.arange(100), np.random.default_rng(0).integers(0, 6, 100)
    candidates["margin"] = margins
    best = Farthest(count, KIND)
    best.add(candidates)
    assert best.best()["index"].tolist() == brute_force(margins, count)


def test_piece_by_piece_is_all_at_once_in_bounded_memory() -> None:
    random = np.random.default_rng(1)
    everything = np.empty(5000, KIND)
    everything["index"], everything["margin"] = np.arange(5000), random.integers(0, 300, 5000) / 7
    everything["margin"][random.random(5000) < 0.2] = -np.inf
    best = Farthest(200, KIND)
    for start in range(0, 5000, 100):
        best.add(everything[start : start + 100])
        assert sum(map(len, best._pieces)) <= 2 * 200 + 100
    finite = everything["margin"]
    assert best.best()["index"].tolist() == brute_force(finite, 200)


def test_impossible_ones_are_never_kept() -> None:
    candidates = np.array([(0, -np.inf), (1, 2.0), (2, -np.inf)], KIND)
    best = Farthest(3, KIND)
    best.add(candidates)
    assert best.best()["index"].tolist() == [1]


USABLE = np.array([1, 4, 5, 9])


def test_members_differ_and_all_sizes_nodules_and_turns_occur() -> None:
    groups = draw_groups(0, 600, USABLE, 3)
    assert groups.members.shape == groups.flip_rots.shape == (600, 3) and len(groups) == 600
    sizes = (groups.members != NONE).sum(axis=1)
    assert np.bincount(sizes, minlength=4)[1:].min() > 150  # a third each
    for members, size in zip(groups.members, sizes, strict=True):
        assert set(members[:size]) <= set(USABLE) and len(set(members[:size])) == size
        assert (members[size:] == NONE).all()
    first = np.bincount(groups.members[:, 0], minlength=10)
    assert first[USABLE].min() > 100 and first.sum() == first[USABLE].sum()
    assert np.bincount(groups.flip_rots[:, 0]).min() > 40 and groups.flip_rots.max() == len(FLIP_ROTS) - 1


def test_the_first_groups_do_not_depend_on_the_others() -> None:
    few, many = draw_groups(3, 10, USABLE, 3), draw_groups(3, 600, USABLE, 3)
    np.testing.assert_array_equal(few.members, many.first(10).members)
    np.testing.assert_array_equal(few.flip_rots, many.first(10).flip_rots)
    assert (draw_groups(4, 10, USABLE, 3).members != few.members).any()


def test_fewer_nodules_than_a_group_may_have() -> None:
    assert draw_groups(0, 5, USABLE[:2], 3).members.shape == (5, 2)


def bank(alpha: np.ndarray, spacing_mm: float = 0.5) -> NoduleBank:
    records = [NoduleRecord(f"n{n}", "", "", 1.0, spacing_mm) for n in range(len(alpha))]
    return NoduleBank(np.zeros(alpha.shape, np.int16), alpha, records)


def test_centre_and_farthest_pixel() -> None:
    alpha = np.zeros((2, 6, 8), np.uint8)
    alpha[0, 2, 1:6] = 128  # a row of five pixels, and
    alpha[0, 4, 4] = 127  # less than half a nodule
    result = measure_nodules(bank(alpha))
    np.testing.assert_array_equal(result.centres[0], [2, 3])
    np.testing.assert_allclose(result.radii_mm, [2.5 * 0.5, 0], rtol=0.01)
    assert result.usable.tolist() == [0]


def test_a_nodule_reaches_as_far_as_it_is_seen_and_not_as_its_mask() -> None:
    """A disc of 5 pixels in a generous mask of 7: the distance to the lung's edge is the picture's."""
    mask, nodule = disc(33, (16, 15), 7), disc(33, (17, 15), 5)
    hu = np.where(nodule, 40, -850).astype(np.int16)[None]
    nodule_bank = NoduleBank(hu, mask[None].astype(np.uint8) * 255, [NoduleRecord("n", "", "", 10.5, 0.7)])
    result = measure_nodules(nodule_bank)
    np.testing.assert_allclose(result.centres[0], [17, 15], atol=0.05)
    assert result.radii_mm[0] == pytest.approx(5.5 * 0.7, rel=0.05)


def test_banks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="none of the bank has a mask"):
        measure_nodules(bank(np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(UserError, match=r"nodule n0: spacing of 0\.0 mm"):
        measure_nodules(bank(np.full((1, 4, 4), 255, np.uint8), spacing_mm=0.0))
    broken = bank(np.full((1, 4, 4), 255, np.uint8))
    with pytest.raises(UserError, match="differ in shape"):
        measure_nodules(NoduleBank(broken.hu[:, 1:], broken.alpha, broken.records))
