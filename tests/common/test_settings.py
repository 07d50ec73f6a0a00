"""What a setting's value may be: its default's type, in a range that its name tells."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.errors import UserError
from common.paths import repository_root
from common.settings import (
    check_resumed,
    command_line,
    defaults_in,
    settled_value,
    training_settings,
    typed_values,
)

FOLDERS = sorted(repository_root().glob("bundles/*/configs"))


def settled(name: str, value: Any, typed: str | None = None, bundle: str = "pix2pix_covid") -> Any:
    defaults = defaults_in(repository_root() / "bundles" / bundle / "configs")
    return settled_value(name, value, defaults.get(name, ()), typed)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_every_default_is_a_value_that_its_setting_takes(folder: Path) -> None:
    for name, values in defaults_in(folder).items():
        for value in values:
            assert settled_value(name, value, values) == value, name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_epochs", 3.0, 3),
        ("learning_rate", 1, 1),
        ("resume", 1, True),
        ("amp", 0, False),
        ("amp", "bf16", "bf16"),
        ("output_dir", 2024, "2024"),
        ("output_dir", Path("/data/one"), "/data/one"),
        ("output_dir", "/data/a::b", "/data/a#b"),
        ("output_dir", "/Bilder/Lunge @home $1, größer", "/Bilder/Lunge @home $1, größer"),
        ("dataset_dir", None, None),
        ("discriminator_augment", None, None),
        ("window", [-1000, 400], [-1000, 400]),
        ("cpu_minutes", 5, 5),
        ("hu_offset", -1024, -1024),
        ("made_up", {"any": 1}, {"any": 1}),
    ],
)
def test_a_value_gets_the_type_of_its_setting(name: str, value: Any, expected: Any) -> None:
    found = settled(name, value)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("typed", "read", "expected"),
    [
        ("run,1", ("run", 1), "run,1"),
        ("2024.10", 2024.1, "2024.10"),
        ("1_000", 1000, "1_000"),
        ("/a#b", "/a::b", "/a#b"),
        ("/a::b", "/a::b", "/a::b"),
        ("'12'", "12", "12"),
        ("[7]", [7], "[7]"),
        ("true", True, "true"),
        ("1e3", 1000.0, "1e3"),
    ],
)
def test_a_folder_is_what_was_typed(typed: str, read: Any, expected: str) -> None:
    assert settled("output_dir", read, typed) == expected


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", 0, "0 is not a whole number from 1 up"),
        ("max_epochs", 1.5, "1.5 is not a whole number"),
        ("max_epochs", None, "null is not a whole number"),
        ("image_size", 0, "from 1 up"),
        ("image_size", "abc", "'abc' is not a whole number"),
        ("image_size", [64, 64], "[64, 64] is not a whole number"),
        ("num_workers", -1, "from 0 up"),
        ("seed", "x", "'x' is not a whole number"),
        ("seed", -3, "from 0 up"),
        ("learning_rate", -1, "-1 is not a number above 0"),
        ("learning_rate", 0.0, "above 0"),
        ("lambda_l1", float("nan"), "nan is not a finite number"),
        ("weight_decay", float("inf"), "not a finite number"),
        ("beta1", 1.5, "from 0 to 1"),
        ("decay_from", -0.1, "from 0 to 1"),
        ("ema_half_life", -5, "from 0 up"),
        ("cpu_minutes", 0, "above 0"),
        ("cpu_minutes", "soon", "'soon' is not a number"),
        ("resume", "maybe", "'maybe' is not a true or false"),
        ("channels_last", 2, "2 is not a true or false"),
        ("image_iterations", 5, "5 is not a list"),
        ("output_dir", None, "null is not a text"),
        ("output_dir", "", "is empty"),
        ("window", "", "is empty"),
        ("device", "cuda:99", "'cuda:99' is not here"),
        ("device", "gpu", "'gpu' is not here"),
        ("device", "meta", "'meta' is not here"),
    ],
)
def test_another_value_is_refused_in_one_line(name: str, value: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        settled(name, value)
    line = str(caught.value)
    assert line.startswith(f"config key '{name}': ") and words in line and "\n" not in line


def test_words_of_a_command_line_keep_their_text() -> None:
    words = [
        "run",
        "training",
        "--config_file",
        "a.yaml",
        "--net#width",
        "08",
        "--output-dir=/x=y#z",
        "-seed",
        "1",
    ]
    found = typed_values(words)
    assert found["net::width"] == "08" and found["output_dir"] == "/x=y#z" and found["seed"] == "1"
    assert typed_values([]) == {}


def as_bundle_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Makes this process look like ``python -m monai.bundle WORDS``."""
    main = ModuleType("__main__")
    main.__spec__ = SimpleNamespace(name="monai.bundle.__main__")  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["monai.bundle", *words])


def test_only_the_bundle_command_has_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command_line() is None
    as_bundle_command(monkeypatch, "run", "--seed", "1")
    assert command_line() == ["run", "--seed", "1"]


def workflow(folder: Path, **overrides: Any) -> ConfigWorkflow:
    """An initialised workflow of a bundle of two settings."""
    file = folder / "configs" / "train.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        'imports: ["$import common.run as run", "$import torch"]\n'
        "output_dir: results\nmax_epochs: 2\nseed: 7\n"
        'train:\n  trainer: "$torch.rand(1).item()"\n  folder: "$@output_dir + \'/models\'"\n'
        'initialize: ["$run.initialize_run()"]\n'
        'training: ["$run.initialize_run()",'
        ' "$(@train#trainer, torch.rand(1).item(), @max_epochs, @train#folder)"]\n'
    )
    made = ConfigWorkflow(str(file), run_id="training", workflow_type=None, logging_file=False, **overrides)
    made.initialize()
    return made


def test_a_number_sign_stays_in_the_paths_of_a_run(tmp_path: Path) -> None:
    made = workflow(tmp_path, output_dir="/data/run#1/a#b")
    assert made.parser.get_parsed_content("train#folder") == "/data/run#1/a#b/models"
    made = workflow(tmp_path, output_dir=Path("/data/c"))
    assert made.parser.get_parsed_content("train#folder") == "/data/c/models"


def test_looking_at_a_component_before_the_run_keeps_the_seed(tmp_path: Path) -> None:
    torch.manual_seed(99)
    hook = sys.excepthook
    plain = workflow(tmp_path).run()[-1]
    torch.manual_seed(100)
    looked = workflow(tmp_path)
    first = looked.parser.get_parsed_content("train#trainer")
    assert looked.run()[-1] == plain and plain[0] == first
    assert workflow(tmp_path, seed=8).run()[-1] != plain
    assert sys.excepthook is hook  # a notebook keeps its tracebacks


def test_a_changed_config_starts_again(tmp_path: Path) -> None:
    """MONAI parses a config again after a change: the seed and the checks hold for that, too."""
    made = workflow(tmp_path)
    first = made.run()[-1]
    made.parser["max_epochs"] = 5.0
    made.initialize()
    again = made.run()[-1]
    assert again[:2] == first[:2] and again[2] == 5 and isinstance(again[2], int)


def test_parsers_without_a_bundle_have_no_defaults(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "good.yaml").write_text("a: 1\nb: $1 + 1\nc: {_target_: dict}\n")
    assert defaults_in(tmp_path) == {"a": [1]}


TRAINING: dict[str, Any] = {
    "output_dir": "results",
    "resume": True,
    "max_epochs": 3,
    "learning_rate": 0.1,
    "val_interval": 2,
    "labels": ("LV", "Myo"),
    "window": "lung",
    "width": "$4 * 2",
    "network_def": {"_target_": "bundles.made.networks.Net", "width": "@width", "levels": 3},
    "data": {"_target_": "made.Data", "window": "@window", "labels": "@labels", "dataset_dir": "/data"},
    "train": {
        "handlers": [{"_target_": "made.Handlers", "interval": "@val_interval", "shown": "loss"}],
        "trainer": {
            "_target_": "made.Trainer",
            "max_epochs": "@max_epochs",
            "networks": {"G": "@network_def"},
            "optimizers": "$torch.optim.Adam(@network_def, @learning_rate)",
            "train_data_loader": "@data",
            "train_handlers": "@train::handlers",
        },
    },
    "validate": {"metric": 1},
}


def test_what_a_trainer_reads_decides_a_training() -> None:
    assert training_settings(TRAINING) == {
        "max_epochs": 3,
        "learning_rate": 0.1,
        "val_interval": 2,
        "labels::0": "LV",
        "labels::1": "Myo",
        "window": "lung",
        "width": "$4 * 2",
        "network_def::_target_": "Net",
        "network_def::levels": 3,
        "data::_target_": "Data",
        "train::trainer::_target_": "Trainer",
    }
    assert training_settings({"train": "$made()"}) == training_settings({}) == {}


def resumed(monkeypatch: pytest.MonkeyPatch, *words: str, **changes: Any) -> str:
    """What resuming with changed settings says, by a command line that names some of them."""
    as_bundle_command(monkeypatch, "run", *words)
    saved = training_settings(TRAINING)
    try:
        check_resumed(saved, {**saved, **changes})
    except UserError as error:
        return str(error)
    return ""


def test_other_settings_are_refused_with_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    line = resumed(monkeypatch, window="bone")
    assert line == "cannot resume: window was lung, is bone; use the run's settings, or another --output_dir"
    assert "network_def#levels was 3, is 5" in resumed(monkeypatch, **{"network_def::levels": 5})
    assert "labels#2 was missing, is RV" in resumed(monkeypatch, **{"labels::2": "RV"})
    assert "width was $4 * 2, is 9" in resumed(monkeypatch, width=9)
    several = {"window": None, "width": 1, "labels::0": "RV", "labels::1": "LV"}
    assert "labels#0 was LV, is RV" in resumed(monkeypatch, **several)
    assert "(and 1 more)" in resumed(monkeypatch, **several)
    assert "window was lung, is null" in resumed(monkeypatch, window=None)


def test_what_may_change_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert resumed(monkeypatch) == "" and not caplog.messages
    assert resumed(monkeypatch, max_epochs=9, val_interval=1, new_setting=True) == ""
    assert caplog.messages == [
        "resumed with other settings: max_epochs was 3, is 9; val_interval was 2, is 1"
    ]


def test_a_learning_rate_changes_where_the_command_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    line = resumed(monkeypatch, learning_rate=0.2)
    assert "learning_rate was 0.1, is 0.2; use the run's settings, --learning_rate to change that," in line
    assert resumed(monkeypatch, "--learning_rate", "0.2", learning_rate=0.2) == ""
    assert resumed(monkeypatch, "--learning_rate=0.2", learning_rate=0.2) == ""
    assert "window" in resumed(monkeypatch, "--window", "bone", window="bone")
