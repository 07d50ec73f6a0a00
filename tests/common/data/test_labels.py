from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from common.config import check_config
from common.data.labels import (
    MMWHS_VALUES,
    STRUCTURES,
    WHOLE_HEART,
    LabelSet,
    class_count,
    is_condition_image,
    parsed_map,
    structure_mask,
)
from common.errors import UserError
from common.run import coerce_cli_literals

FILE = Path("label.nii.gz")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("all", STRUCTURES),
        ("whole_heart", (WHOLE_HEART,)),
        ("myo, lv", ("LV", "Myo")),
        (500, ("LV",)),
        ("205", ("Myo",)),
        (["LV", 205], ("LV", "Myo")),
        (("PA", "Ao"), ("Ao", "PA")),
        ("['RV', 850]", ("RV", "PA")),
        ("all,whole_heart", (*STRUCTURES, WHOLE_HEART)),
    ],
)
def test_labels_as_the_command_line_brings_them(labels: Any, classes: tuple[str, ...]) -> None:
    assert LabelSet(labels).classes == classes


@pytest.mark.parametrize("labels", ["liver", 7, ["LV", "aorta"], "", [], "background"])
def test_unknown_labels_list_the_known(labels: Any) -> None:
    with pytest.raises(
        UserError, match=r"(unknown|nothing selected).*LV, RV, LA, RA, Myo, Ao, PA, whole_heart"
    ):
        LabelSet(labels)


@pytest.mark.parametrize(
    "text",
    [
        "{1: whole_heart, 2: Ao, 3: PA}",
        "{1:whole_heart,2:ao,3:pa}",
        '{"1": "whole_heart", "2": "Ao", "3": "PA"}',
        "1: WHOLE_HEART, 2: Ao, 3: PA",
        {1: "whole_heart", 2: "Ao", 3: "PA"},
        {"3": "PA", "2": "Ao", "1": "whole_heart"},
    ],
)
def test_maps_as_text_or_dict(text: Any) -> None:
    assert parsed_map(text) == {1: "whole_heart", 2: "Ao", 3: "PA"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{1: liver}", "'liver' is unknown; choose from LV"),
        ("{1: all}", "'all' is unknown"),
        ("{LV: 1}", "'LV' is no label value"),
        ("{1: 2: [}", "cannot be read"),
        ("{}", "give {VALUE: NAME"),
        (5, "give {VALUE: NAME"),
    ],
)
def test_bad_maps(given: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        LabelSet(label_map=given)


def test_default_values_are_the_order_and_those_of_mmwhs() -> None:
    assert LabelSet().table(range(8), FILE).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    names = list(MMWHS_VALUES)
    table = LabelSet().table([0, *MMWHS_VALUES.values(), 421], FILE)
    assert [STRUCTURES[k - 1] for k in table[1:]] == [*names, "LA"] and table[0] == 0


def test_own_class_else_whole_heart_else_background() -> None:
    values = [0, 1, 5, 6]  # background, LV, Myo, Ao
    assert LabelSet("Ao").table(values, FILE).tolist() == [0, 0, 0, 1]
    assert LabelSet("whole_heart").table(values, FILE).tolist() == [0, 1, 1, 1]
    assert LabelSet("whole_heart,Ao").table(values, FILE).tolist() == [0, 2, 2, 1]


def test_a_foreign_map_replaces_the_default() -> None:
    foreign = LabelSet(coarse=True, label_map="{1: whole_heart, 2: Ao, 9: background}")
    assert foreign.table([0, 1, 2, 9], FILE).tolist() == [0, 8, 6, 0]
    with pytest.raises(UserError, match=r"label\.nii\.gz: label values 3 are not in the label map"):
        foreign.table([0, 1, 3], FILE)
    assert foreign.with_map({3: "PA"}).table([0, 3], FILE).tolist() == [0, 7]


def test_values_nobody_knows() -> None:
    with pytest.raises(UserError, match=r"values 8, 206 are no known .* no map is given; give --label_map"):
        LabelSet("LV").table([0, 1, 8, 206], FILE)
    with pytest.raises(UserError, match="value 4 means whole_heart, which is none of LV"):
        LabelSet("LV", {4: "whole_heart"}).table([0, 4], FILE)


def test_merging_keeps_the_great_vessels_apart() -> None:
    assert LabelSet(coarse=True).merged().tolist() == [0, 8, 8, 8, 8, 8, 6, 7, 8]
    assert LabelSet("Ao,RV", coarse=True).merged().tolist() == [0, 3, 2, 3]
    with pytest.raises(UserError, match="coarse"):
        LabelSet().merged()


def test_the_state_is_json_and_comes_back() -> None:
    for original in (LabelSet("LV,Ao", "{7: LV, 3: Ao}", coarse=True), LabelSet(205)):
        again = LabelSet.from_state(json.loads(json.dumps(original.state())))
        assert (again.classes, again.label_map) == (original.classes, original.label_map)


@pytest.mark.parametrize(
    "text", ["{1: whole_heart, 2: Ao, 3: PA}", "{1:whole_heart,2:Ao,3:PA}", "1:whole_heart,2:Ao,3:PA"]
)
def test_the_command_line_and_a_config_carry_a_map(text: str) -> None:
    target = {"_target_": "common.data.labels.LabelSet", "labels": "@labels", "label_map": "@label_map"}
    parser = ConfigParser({"labels": "all", "label_map": {1: "LV"}, "set": target})
    parser.update({"labels": DefaultParseValue("LV,Ao"), "label_map": DefaultParseValue(text)})
    parser.parse()
    coerce_cli_literals(parser)
    check_config(parser, ["set"])
    made = parser.get_parsed_content("set")
    assert made.classes == ("LV", "Ao") and made.label_map == {1: "whole_heart", 2: "Ao", 3: "PA"}


def test_kinds_of_labels_are_told_apart() -> None:
    mask, classes, image = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 3.0]), torch.tensor([-0.9, 0.7])
    found = [(is_condition_image(labels), class_count(labels)) for labels in (mask, classes, image)]
    assert found == [(False, 1), (False, 3), (True, 1)]
    assert class_count(torch.zeros(0, 1, 4, 4)) == 0


def test_a_structure_needs_a_thousandth_of_the_slice() -> None:
    labels = torch.zeros(3, 1, 64, 32)  # 2 pixels are enough
    labels[0, 0, 5, 7:9] = 2
    labels[1, 0, 5, 7] = 2
    labels[2, 0, 40:, 7] = 1
    mask = structure_mask(labels, 2)
    assert mask.shape == labels.shape and mask.dtype == torch.bool
    assert mask.nonzero().tolist() == [[0, 0, 5, 7], [0, 0, 5, 8]]
