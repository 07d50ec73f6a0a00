from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.errors import UserError
from common.sharing.configs import as_json, read_config, with_network

FILE = Path("configs/train.yaml")


def test_expressions_and_order_stay() -> None:
    config = {"z": "$@a + '/µ'", "a": [1.5, None, True], "b#c": {"_target_": "x.Y"}}
    assert json.loads(as_json(config, FILE)) == config
    assert list(json.loads(as_json(config, FILE))) == ["z", "a", "b#c"]
    assert "µ" in as_json(config, FILE)


@pytest.mark.parametrize("value", [float("inf"), {1: "@x"}, (1, 2), {2, 3}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"train.yaml: .*quotes"):
        as_json({"key": value}, FILE)


def test_label_values_stay_numbers() -> None:
    config = {"label_map": {500: "LV", 205: "Myo"}, "other": [{"a": {1: None}}]}
    written = json.loads(as_json(config, FILE))
    assert written == {"label_map": "${500: 'LV', 205: 'Myo'}", "other": [{"a": "${1: None}"}]}
    assert ConfigParser(written).get_parsed_content("label_map") == config["label_map"]


def test_yaml_is_read_unevaluated(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: $1 + 1\nb: '@a'\n")
    assert read_config(tmp_path / "x.yaml") == {"a": "$1 + 1", "b": "@a"}


def test_a_recipe_gets_the_network_of_the_weights() -> None:
    config = {
        "image_size": 128,
        "classes": ["a", "b"],
        "network_def": {
            "_target_": "bundles.x.Net",
            "_requires_": "@ready",
            "image_size": "@image_size",
            "classes": "$len(@classes)",
            "width": 32,
            "dropped": 1,
        },
    }
    arguments = {"image_size": 64, "classes": 2, "width": 8}
    changed = with_network(config, {"target": "bundles.x.Net", "arguments": arguments})
    assert changed["image_size"] == 64
    assert changed["network_def"] == {
        "_target_": "bundles.x.Net",
        "_requires_": "@ready",
        "image_size": "@image_size",
        "classes": 2,
        "width": 8,
    }
    assert config["network_def"]["width"] == 32  # the source is left alone


def test_another_network_replaces_the_recipes() -> None:
    config = {"network_def": {"_target_": "bundles.x.Net", "_requires_": "@ready", "width": 32}}
    changed = with_network(config, {"target": "bundles.x.Other", "arguments": {"depth": 3}})
    assert changed["network_def"] == {"_target_": "bundles.x.Other", "_requires_": "@ready", "depth": 3}
