"""What is refused, and what the one line says."""

from __future__ import annotations

from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.config import check_config, lookup, roots, suggestion, unread, values_read
from common.errors import UserError

CONFIG: dict[str, Any] = {
    "max_epochs": 3,
    "lr": 0.1,
    "train": {
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$[]", "lr": "@lr"},
        "trainer": {"_target_": "torch.nn.Linear", "in_features": "@max_epochs", "out_features": 2},
    },
    "training": ["$@train::trainer", "$@train::optimizer"],
}


def complaint(overrides: dict[str, Any]) -> str:
    """What the check says about CONFIG with overrides; '' when it passes."""
    parser = ConfigParser({**CONFIG, "train": {key: dict(value) for key, value in CONFIG["train"].items()}})
    parser.update(overrides)
    parser.parse()
    try:
        check_config(parser, ["training"])
    except UserError as error:
        return str(error)
    return ""


def test_a_good_config_passes() -> None:
    assert complaint({}) == ""
    assert complaint({"max_epochs": 5, "train#trainer#bias": False}) == ""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("epocs", "unknown config key 'epocs'; did you mean 'max_epochs'?"),
        (
            "ema_decay",
            "unknown config key 'ema_decay'; it is 'ema_half_life' now, in images: "
            "0.69 * batch_size / (1 - ema_decay) is the same",
        ),
        ("normals_dir", "unknown config key 'normals_dir'; it is 'healthy_slices_dir' now"),
        ("train#x", "unknown config key 'train#x'; known here: optimizer, trainer"),
        ("train#optim", "unknown config key 'train#optim'; did you mean 'train#optimizer'?"),
        (
            "train#trainer#out_feature",
            "config key 'train#trainer#out_feature': torch.nn.Linear takes no 'out_feature';"
            " did you mean 'train#trainer#out_features'?",
        ),
    ],
)
def test_a_mistyped_override_is_named_with_its_nearest(key: str, line: str) -> None:
    assert complaint({key: 3}) == line


def test_numbers_that_yaml_reads_as_text_are_refused() -> None:
    assert complaint({"lr": "1e-4"}) == "config key 'lr': '1e-4' is text in YAML; write 1.0e-4"
    assert complaint({"lr": "-2.5E3"}).endswith("write -2.5e+3")
    assert complaint({"lr": "epoch 1e-4"}) == ""


def test_an_attribute_behind_a_reference_is_refused() -> None:
    """MONAI takes it for a plain text."""
    line = "config key 'lr': '@train#optimizer.lr' is text; write $@train#optimizer.lr"
    assert complaint({"lr": "@train#optimizer.lr"}) == line
    assert complaint({"lr": "$@max_epochs.real"}) == ""
    assert complaint({"train#trainer#out_features": "someone@example.org"}) == ""


def test_targets_with_any_keywords_and_disabled_ones_pass() -> None:
    assert complaint({"train#trainer": {"_target_": "dict", "anything": 1, "n": "@max_epochs"}}) == ""
    assert complaint({"train#trainer#_disabled_": True, "train#trainer#wrong": 1}) == ""


def test_the_suggestion_prefers_names_beside() -> None:
    assert suggestion("epochs", ["epoch"], "", ["deep::epochs"]) == "; did you mean 'epoch'?"
    assert suggestion("epochs", ["width"], "", ["deep::epochs"]) == "; did you mean 'deep#epochs'?"
    assert suggestion("x", []) == ""


def unread_in(config: dict[str, Any], *ids: str) -> list[str]:
    """The unread ids of a config after MONAI's own parsing (macros, relative ids)."""
    parser = ConfigParser(config)
    parser.parse()
    return list(unread(parser.get(), values_read(parser.get(), [*roots(parser.get()), *ids])))


def test_references_are_followed_through_components_and_expressions() -> None:
    config = {
        "lr": 0.1,
        "half": "$@lr / 2",
        "net": {"_target_": "torch.nn.Linear", "in_features": "@width", "out_features": 1},
        "width": 3,
        "training": ["$print(@net, @half)"],
    }
    assert unread_in(config) == []


def test_a_key_without_a_reader_is_found_at_top_level() -> None:
    assert unread_in({"max_epochs": 3, "epocs": 5, "training": ["$print(@max_epochs)"]}) == ["epocs"]


def test_only_the_referenced_part_of_a_plain_dict_is_read() -> None:
    config = {"sizes": {"used": {"deep": 1}, "x": 3}, "training": ["$print(@sizes::used)"]}
    assert unread_in(config) == ["sizes::x"]
    config = {"sizes": {"used": {"deep": 1}, "x": 3}, "training": ["$print(@sizes)"]}
    assert unread_in(config) == []


def test_a_plain_string_with_an_at_sign_is_no_reference() -> None:
    assert unread_in({"who": "someone@lr", "lr": 1, "training": ["$print(@who)"]}) == ["lr"]


def test_other_run_lists_and_required_properties_are_roots() -> None:
    config = {"dataset_dir": "data", "a": 1, "training": ["$print(1)"], "other": ["$print(@a)"]}
    assert unread_in(config) == []


def test_aliases_and_macros_count_as_read() -> None:
    config = {
        "base": {"width": 3, "depth": [1, 2]},
        "net": "%base",
        "training": ["$print(@net)"],
        "run": "$@training",
        "_desc_": "a note",
        "_meta_": {"version": "1"},
    }
    assert unread_in(config) == []


def test_requirements_and_relative_references_are_read() -> None:
    config = {
        "ready": "$print('ready')",
        "part": {"a": 1, "net": {"_target_": "dict", "_requires_": "@ready", "b": "@##a"}},
        "training": ["$print(@part::net)"],
    }
    assert unread_in(config) == []


def test_lookup_of_absent_ids_never_equals_a_value() -> None:
    config = {"a": [1, {"b": None}]}
    assert lookup(config, "a::1::b") is None
    missing = lookup(config, "a::7")
    assert missing is lookup(config, "c") is lookup(config, "a::x") is not None


@pytest.mark.parametrize(
    ("argument", "value", "words"),
    [
        ("levels", "many", "'many' is not a whole number"),
        ("levels", 2.5, "2.5 is not a whole number"),
        ("levels", True, "True is not a whole number"),
        ("dropout", float("nan"), "nan is not a finite number"),
        ("dropout", None, "None is not a finite number"),
        ("decoder_noise", 3, "3 is not true or false"),
        ("levels", 3, ""),
        ("dropout", 0, ""),
        ("levels", "$2 + 1", ""),
        ("norm", 5, ""),
    ],
)
def test_arguments_of_own_classes_have_the_types_that_they_declare(
    argument: str, value: Any, words: str
) -> None:
    network = {"_target_": "bundles.pix2pix_covid.networks.UnetGenerator", argument: value}
    line = complaint({"train#trainer": network, "lr": "@max_epochs"})
    assert words in line and bool(line) == bool(words)
    assert not line or line.startswith(f"config key 'train#trainer#{argument}': ")
