"""Composites by number: replayable, order-independent, with their masks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bundles.lung_two_stage.banks import NoduleBank
from bundles.lung_two_stage.composition.patches import (
    SOFT_TISSUE,
    NodulePatch,
    Outline,
    estimate_noise,
    high_pass,
    make_noise,
)
from bundles.lung_two_stage.composition.plan import (
    PlanSettings,
    draw_groups,
    make_plan,
    measure_nodules,
    place_in_slice,
)
from bundles.lung_two_stage.composition.render import (
    Renderer,
    blend,
    category_order,
    match_contrast,
    missing_noise,
    weight_of_denser,
)
from bundles.lung_two_stage.composition.shards import FileFormat
from bundles.lung_two_stage.extraction.presence_map import PresenceMap
from common.errors import UserError
from tests.bundles.lung_two_stage.composition.made import healthy_slices, nodules

EVEN, RULES = PresenceMap.from_points(()), PlanSettings(count=30, groups=25, seed=3)


def renderer(bank: NoduleBank | None = None) -> Renderer:
    bank, slices = bank or nodules(), healthy_slices()
    geometry = measure_nodules(bank)
    plan, _ = make_plan(bank, slices, EVEN, RULES)
    return Renderer(bank, slices, draw_groups(3, 25, geometry.usable, 3), geometry, plan, seed=3)


def test_a_composite_is_the_same_in_any_order() -> None:
    forth, back = renderer(), renderer()
    first = [forth.member(number, FileFormat()).files for number in range(30)]
    for number in reversed(range(30)):
        assert back.member(number, FileFormat()).files == first[number]


def test_the_mask_is_where_the_nodules_of_the_record_are() -> None:
    render = renderer()
    labels = set()
    for number in range(30):
        image, mask, record = render.composite(number)
        normal = render.healthy_slices.hu[int(record["normal"]["name"][-1])]
        assert image.dtype == np.int16 and mask.dtype == np.uint8
        changed = image != normal
        assert not (changed & (render.healthy_slices.lung[0] == 0)).any() and (mask[~changed] == 0).all()
        for nodule in record["nodules"]:
            label = ["part_solid", "solid"].index(nodule["category"]) + 1
            assert mask[nodule["row"], nodule["column"]] == label
            assert image[nodule["row"], nodule["column"]] > -300
            labels.add(label)
        rows, columns = np.nonzero(mask)
        for row, column in zip(rows, columns, strict=True):
            near = [np.hypot(n["row"] - row, n["column"] - column) for n in record["nodules"]]
            assert min(near) <= 2.5
    assert labels == {1, 2}


def test_the_record_is_enough_to_make_it_again() -> None:
    render = renderer()
    record = json.loads(render.member(7, FileFormat()).files["json"])
    normal, group = divmod(record["index"], 25)
    assert group == record["group"] and record["normal"]["patient"] == f"patient_{normal}"
    groups = draw_groups(record["seed"], 25, render.geometry.usable, 3)
    placed = place_in_slice(
        render.healthy_slices, normal, EVEN, groups.first(group + 1), render.geometry, RULES
    )
    assert record["distance_mm"] == pytest.approx(float(placed.margins[-1]), abs=1e-3)
    for member, nodule in enumerate(record["nodules"]):
        assert nodule["name"] == f"nodule_{groups.members[group, member]}"
        assert nodule["row"] * 32 + nodule["column"] == placed.pixels[-1, member]


def test_the_diameter_of_the_record_is_the_pictures() -> None:
    """The banks say 2 mm of every nodule; their discs are of 1 to 1.8 pixels of 0.8 mm."""
    render = renderer()
    records = [nodule for number in range(30) for nodule in render.composite(number).record["nodules"]]
    assert {record["mask_diameter_mm"] for record in records} == {2.0}
    widths = {int(record["name"][-1]): record["diameter_mm"] for record in records}
    for number, hu in enumerate(render.nodules.hu):
        area = (hu > -400).sum() * 0.8**2
        assert widths[number] == pytest.approx(2 * np.sqrt(area / np.pi), rel=0.15)  # blurred to 1 mm


def test_without_categories_the_mask_is_1() -> None:
    bank = nodules()
    plain = NoduleBank(bank.hu, bank.alpha, [replace(record, category="") for record in bank.records])
    render = renderer(plain)
    assert render.categories == [] and set(np.unique(render.composite(0).mask)) == {0, 1}


def test_the_healthy_slices_stay_untouched() -> None:
    render = renderer()
    before = render.healthy_slices.hu.copy()
    for number in range(30):
        render.composite(number)
    np.testing.assert_array_equal(render.healthy_slices.hu, before)


def test_the_order_of_the_categories_can_be_given_and_must_be_complete() -> None:
    assert category_order(nodules()) == ["part_solid", "solid"]
    assert category_order(nodules(), ["solid", "spiculated", "part_solid"])[0] == "solid"
    with pytest.raises(UserError, match="nodule nodule_0: category 'part_solid' is none of solid, benign"):
        category_order(nodules(), ["solid", "benign"])


LUNG_HU = -850


def patch_of(
    hu: np.ndarray, alpha: np.ndarray, background: float = LUNG_HU, noise: float = 0.0
) -> NodulePatch:
    values = hu.astype(np.float32)
    inside = alpha >= 0.5
    outline = Outline(np.argwhere(inside).astype(float), 1.0, 1.0)
    return NodulePatch(
        values, alpha.astype(np.float32), high_pass(values), background, noise, inside, outline
    )


def blended(
    image: np.ndarray, patch: NodulePatch, place: tuple[int, int] = (10, 12), lung: np.ndarray | None = None
) -> np.ndarray:
    result = image.copy()
    inside = np.ones(image.shape, np.uint8) if lung is None else lung
    blend(result, inside, patch, place, np.random.default_rng(0))
    return result


def flat(level: int = LUNG_HU, side: int = 24) -> np.ndarray:
    return np.full((side, side), level, np.int16)


def rough(side: int = 24, deviation: float = 30) -> np.ndarray:
    return (LUNG_HU + deviation * make_noise(np.random.default_rng(5), side)).astype(np.int16)


def test_alpha_0_leaves_the_slice_as_it_is() -> None:
    image = rough()
    nothing = patch_of(np.full((7, 7), 60), np.zeros((7, 7)))
    np.testing.assert_array_equal(blended(image, nothing), image)


def test_alpha_1_replaces_it() -> None:
    hu = np.random.default_rng(0).integers(-700, 300, (7, 7))  # denser than the lung everywhere
    result = blended(flat(), patch_of(hu, np.ones((7, 7))))
    np.testing.assert_array_equal(result[7:14, 9:16], hu)
    result[7:14, 9:16] = LUNG_HU
    np.testing.assert_array_equal(result, flat())


def test_between_it_is_the_weighted_mean() -> None:
    alpha = np.zeros((3, 3))
    alpha[1, 2] = 0.25
    result = blended(flat(), patch_of(np.full((3, 3), 50), alpha))
    assert result[10, 13] == round(0.75 * LUNG_HU + 0.25 * 50) and (result != LUNG_HU).sum() == 1


def test_nothing_outside_alpha_or_outside_the_lung_changes() -> None:
    image, alpha = rough(), np.zeros((9, 9))
    alpha[2:6, 3:8] = 0.7
    lung = np.ones(image.shape, np.uint8)
    lung[:, 13:] = 0
    result = blended(image, patch_of(np.full((9, 9), 40), alpha), lung=lung)
    changed = np.zeros(image.shape, bool)
    changed[8:12, 11:13] = True
    np.testing.assert_array_equal(result != image, changed)


def test_a_stamp_across_the_border_is_cut() -> None:
    result = blended(flat(), patch_of(np.arange(49).reshape(7, 7), np.ones((7, 7))), place=(1, 23))
    np.testing.assert_array_equal(result[:5, 20:], np.arange(49).reshape(7, 7)[2:, :4])
    assert (result != LUNG_HU).sum() == 20


def test_ground_glass_follows_the_lung_and_solid_tissue_stays() -> None:
    half = round((SOFT_TISSUE - 800) / 2)  # half soft tissue, half its own lung of -800
    hu = np.array([[-800, SOFT_TISSUE, half, -800, -800]] * 5)
    result = blended(flat(-900), patch_of(hu, np.ones((5, 5)), background=-800))
    assert result[10, 11:14].tolist() == [50, (50 - 900) / 2, -900]


def test_a_smooth_nodule_gets_the_noise_of_the_slice() -> None:
    image = rough(80)
    smooth = patch_of(np.full((61, 61), -300), np.full((61, 61), 1.0))
    mixed = patch_of(np.full((61, 61), -300), np.full((61, 61), 0.4))
    for patch in (smooth, mixed):
        inside = blended(image, patch, place=(40, 40))[15:65, 15:65].astype(np.float32)
        assert estimate_noise(high_pass(inside)) == pytest.approx(30, rel=0.1)


def test_a_noisy_nodule_is_calmed() -> None:
    noisy = -300 + 60 * make_noise(np.random.default_rng(1), 61)
    patch = patch_of(noisy, np.ones((61, 61)), noise=60)
    inside = blended(rough(80), patch, place=(40, 40))[15:65, 15:65].astype(np.float32)
    assert 25 < estimate_noise(high_pass(inside)) < 40


def test_the_noise_that_mixing_takes_away_is_what_is_missing() -> None:
    alpha = np.array([0.0, 0.5, 1.0], np.float32)
    np.testing.assert_allclose(missing_noise(alpha, 20, 12) ** 2, [0, 400 - 100 - 36, 400 - 144], rtol=1e-5)
    np.testing.assert_array_equal(missing_noise(alpha, 10, 40), 0)


def test_vessels_and_walls_of_the_slice_run_up_to_the_nodule_and_not_through_it() -> None:
    """Lung in the patch does not cover them, soft tissue does, and ground glass half."""
    image = flat()
    image[:, 10:15] = 200  # a vessel as wide as the 3 x 3 pixels that decide, and more
    hu = np.full((15, 15), LUNG_HU)
    hu[6:9], hu[11:] = 40, (SOFT_TISSUE + LUNG_HU) / 2
    result = blended(image, patch_of(hu, np.ones((15, 15))), place=(11, 12))
    column = result[4:19, 12]
    assert column[:5].tolist() == [200] * 5 and column[7] == pytest.approx(
        40, abs=5
    )  # lung, then soft tissue
    assert column[12:14] == pytest.approx(0.25 * -400 + 0.75 * 200, abs=2)  # 1 - opacity squared of it stays
    assert result[5, 7] == LUNG_HU and result[11, 7] == 40


def test_what_is_a_little_denser_is_noise() -> None:
    values = np.full((3, 3), -850, np.float32)
    assert weight_of_denser(values + 50, values, -850, 0).max() == 0
    assert weight_of_denser(values + 100, values, -850, 0).min() == 1
    assert weight_of_denser(values + 75, values, -850, 40).max() == 0  # 2.5 x 40 HU


def test_calming_knows_of_the_stretch() -> None:
    """Grain of 20 HU is 40 after a stretch of 2: to have the slice's 30 it is calmed to 3/4."""
    grain = np.float32([[20.0, -20.0]])
    patch = patch_of(np.full((1, 2), -300) + grain, np.ones((1, 2)), background=-400, noise=20)
    values, own = match_contrast(patch.hu, grain, patch, -850, 30)
    assert own == pytest.approx(30) and np.ptp(values) == pytest.approx(2 * 2 * 20 * 0.75)
