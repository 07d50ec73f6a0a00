"""Composites by number: replayable, order-independent, with their masks."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bundles.lung_two_stage.banks import NoduleBank
from bundles.lung_two_stage.composition.formats import Format
from bundles.lung_two_stage.composition.groups import draw_groups
from bundles.lung_two_stage.composition.outlines import outlines_of
from bundles.lung_two_stage.composition.planning import Rules, make_plan, placed_in
from bundles.lung_two_stage.composition.rendering import Renderer, categories_of
from bundles.lung_two_stage.extraction.presence import PresenceMap
from common.errors import UserError
from tests.bundles.lung_two_stage.composition.made import nodules, normals

EVEN, RULES = PresenceMap.from_points(()), Rules(count=30, groups=25, seed=3)


def renderer(bank: NoduleBank | None = None) -> Renderer:
    bank, slices = bank or nodules(), normals()
    outlines = outlines_of(bank)
    plan, _ = make_plan(bank, slices, EVEN, RULES)
    return Renderer(bank, slices, draw_groups(3, 25, outlines.usable, 3), outlines, plan, seed=3)


def test_a_composite_is_the_same_in_any_order() -> None:
    forth, back = renderer(), renderer()
    first = [forth.member(number, Format()).files for number in range(30)]
    for number in reversed(range(30)):
        assert back.member(number, Format()).files == first[number]


def test_the_mask_is_where_the_nodules_of_the_record_are() -> None:
    render = renderer()
    seen = set()
    for number in range(30):
        image, mask, record = render.composite(number)
        normal = render.normals.hu[int(record["normal"]["name"][-1])]
        assert image.dtype == np.int16 and mask.dtype == np.uint8
        changed = image != normal
        assert not (changed & (render.normals.lung[0] == 0)).any() and (mask[~changed] == 0).all()
        for nodule in record["nodules"]:
            label = ["part_solid", "solid"].index(nodule["category"]) + 1
            assert mask[nodule["row"], nodule["column"]] == label
            assert image[nodule["row"], nodule["column"]] > -300
            seen.add(label)
        rows, columns = np.nonzero(mask)
        for row, column in zip(rows, columns, strict=True):
            near = [np.hypot(n["row"] - row, n["column"] - column) for n in record["nodules"]]
            assert min(near) <= 2.5
    assert seen == {1, 2}


def test_the_record_is_enough_to_make_it_again() -> None:
    render = renderer()
    record = json.loads(render.member(7, Format()).files["json"])
    normal, group = divmod(record["index"], 25)
    assert group == record["group"] and record["normal"]["patient"] == f"patient_{normal}"
    groups = draw_groups(record["seed"], 25, render.outlines.usable, 3)
    placed = placed_in(render.normals, normal, EVEN, groups.first(group + 1), render.outlines, RULES)
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


def test_the_normals_stay_untouched() -> None:
    render = renderer()
    before = render.normals.hu.copy()
    for number in range(30):
        render.composite(number)
    np.testing.assert_array_equal(render.normals.hu, before)


def test_the_order_of_the_categories_can_be_given_and_must_be_complete() -> None:
    assert categories_of(nodules()) == ["part_solid", "solid"]
    assert categories_of(nodules(), ["solid", "spiculated", "part_solid"])[0] == "solid"
    with pytest.raises(UserError, match="nodule nodule_0: category 'part_solid' is none of solid, benign"):
        categories_of(nodules(), ["solid", "benign"])
