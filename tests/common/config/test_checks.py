"""What is refused, and what the one line says."""

from __future__ import annotations

from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.config.checks import check_config, suggestion
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
        ("epocs", "config key 'epocs' is read by nothing; did you mean 'max_epochs'?"),
        (
            "ema_decay",
            "config key 'ema_decay' is read by nothing; it is 'ema_half_life' now, in images: "
            "0.69 * batch_size / (1 - ema_decay) is the same",
        ),
        ("train#x", "config key 'train#x' is read by nothing; known here: optimizer, trainer"),
        ("train#optim", "config key 'train#optim' is read by nothing; did you mean 'train#optimizer'?"),
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
