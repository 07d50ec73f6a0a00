"""A stage's command: the settings that its config knows, its overlays, and resuming."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundles.lung_two_stage.pipeline.stage import Stage, stages_of
from common.errors import UserError


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    (tmp_path / "train.yaml").write_text("seed: 0\nresume: false\nwork_dir: x\n")
    (tmp_path / "overlay.yaml").write_text("rival: 1\n")
    (tmp_path / "extract.yaml").write_text("work_dir: x\n")
    return tmp_path


def test_only_known_settings_are_given_and_a_training_goes_on(configs: Path) -> None:
    shared = {"seed": 3, "work_dir": "W", "rival": 2, "device": "cpu", "dataset_dir": None}
    training = Stage("a", "training", ["train"], "a", settings={"max_epochs": 4})
    assert training.overrides(configs, shared) == {
        "seed": 3,
        "work_dir": "W",
        "resume": "true",
        "max_epochs": 4,
    }
    with_overlay = Stage("a", "training", ["train", "overlay"], "a")
    assert with_overlay.overrides(configs, shared)["rival"] == 2
    assert Stage("b", "extraction", ["extract"], "b").overrides(configs, shared) == {"work_dir": "W"}


def test_the_scans_are_not_for_stages_that_learn_from_a_bank(configs: Path) -> None:
    (configs / "scans.yaml").write_text("dataset_dir: null\n")
    (configs / "banks.yaml").write_text("dataset_dir: null\nbank_dir: null\nwork_dir: x\n")
    shared = {"dataset_dir": "SCANS", "work_dir": "W"}
    assert Stage("a", "training", ["scans"], "a").overrides(configs, shared) == {"dataset_dir": "SCANS"}
    assert Stage("b", "training", ["banks"], "b").overrides(configs, shared) == {"work_dir": "W"}


def test_slices_from_elsewhere_are_for_the_stages_that_read_scans(configs: Path) -> None:
    (configs / "scans.yaml").write_text("dataset_dir: null\nnormals_dir: null\n")
    (configs / "compose.yaml").write_text("normals_dir: null\nwork_dir: x\n")  # its own is a bank
    shared = {"dataset_dir": "SCANS", "normals_dir": "MORE", "work_dir": "W"}
    scans = {"dataset_dir": "SCANS", "normals_dir": "MORE"}
    assert Stage("a", "extraction", ["scans"], "a").overrides(configs, shared) == scans
    assert Stage("b", "composition", ["compose"], "b").overrides(configs, shared) == {"work_dir": "W"}


def test_a_setting_may_name_the_chains_folder(configs: Path) -> None:
    stage = Stage("a", "training", ["train"], "a", settings={"output_dir": "{work_dir}/a", "width": 4})
    given = stage.overrides(configs, {"work_dir": "W"})
    assert given["output_dir"] == "W/a" and given["width"] == 4


def test_the_command_names_one_file_or_a_list(configs: Path) -> None:
    one = Stage("b", "extraction", ["extract"], "b").command(configs, {"work_dir": "W"})
    after = one.index("-m")
    assert one[after:] == [
        *("-m", "monai.bundle", "run", "extraction", "--config_file", str(configs / "extract.yaml")),
        *("--work_dir", "W"),
    ]
    two = Stage("a", "training", ["train", "overlay"], "a").command(configs, {})
    assert str([str(configs / "train.yaml"), str(configs / "overlay.yaml")]) in two


def test_a_config_that_is_not_there_is_refused(configs: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: stage a needs this config"):
        Stage("a", "training", ["train", "gone"], "a").command(configs, {})


def test_stages_follow_what_they_read() -> None:
    first = {"run": "training", "config": "train", "writes": "a"}
    second = {"run": "extraction", "config": ["extract"], "writes": "b", "after": "first"}
    made = stages_of({"first": first, "second": second})
    assert [stage.name for stage in made] == ["first", "second"]
    assert made[0].config == ["train"] and made[1].after == ["first"]
    with pytest.raises(UserError, match="stage second: there is no stage first before it"):
        stages_of({"second": second, "first": first})
    with pytest.raises(UserError, match="stage third: another one writes to a too"):
        stages_of({"first": first, "third": first})


def test_a_stage_set_to_null_is_left_out_and_read_by_none() -> None:
    second = {"run": "extraction", "config": "extract", "writes": "b", "after": ["first"]}
    made = stages_of({"first": None, "second": second})
    assert [stage.name for stage in made] == ["second"] and made[0].after == []
