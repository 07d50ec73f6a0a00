"""The first item of a run list, called as MONAI calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from common.errors import UserError
from common.paths import repository_root
from common.run import adapt_tracking, coerce_cli_literals, component_description, initialize_run, losses_of

CONFIG = {
    "imports": ["$import common.run as run"],
    "max_epochs": 2,
    "seed": 7,
    "training": ["$run.initialize_run()", "$print('ran', @max_epochs)"],
}


def written(folder: Path, config: dict[str, object]) -> Path:
    """``configs/train.yaml`` in a made bundle."""
    path = folder / "configs" / "train.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=1000), encoding="utf-8")
    return path


def started(folder: Path, **overrides: object) -> ConfigWorkflow:
    """Runs the made config in this process, with Python's own hook put back."""
    hook = sys.excepthook
    try:
        file = str(written(folder, CONFIG))
        workflow = ConfigWorkflow(file, run_id="training", workflow_type=None, **overrides)
        workflow.initialize()
        workflow.run()
    finally:
        sys.excepthook = hook
    return workflow


def test_the_seed_is_set(tmp_path: Path) -> None:
    started(tmp_path)
    first = torch.rand(3)
    started(tmp_path)
    assert torch.equal(torch.rand(3), first)
    started(tmp_path, seed=8)
    assert not torch.equal(torch.rand(3), first)


def test_wrong_keys_and_seeds_are_refused(tmp_path: Path) -> None:
    for overrides, said in (({"epocs": 3}, "max_epochs"), ({"seed": -1}, "whole number")):
        with pytest.raises(RuntimeError) as caught:  # MONAI wraps what expressions raise
            started(tmp_path, **overrides)
        assert isinstance(caught.value.__cause__, UserError)
        assert said in str(caught.value.__cause__)


def test_outside_of_a_run_it_says_so() -> None:
    hook = sys.excepthook
    with pytest.raises(UserError, match="no bundle run"):
        initialize_run()
    sys.excepthook = hook


def run_bundle(config_file: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python -m monai.bundle run training`` as a user calls it."""
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(config_file)]
    return subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def unpacked(folder: Path) -> Path:
    """A made bundle with the code beside its configs, as in an unpacked download."""
    (folder / "common").symlink_to(repository_root() / "common", target_is_directory=True)
    (folder / "bundles" / "made").mkdir(parents=True)
    (folder / "bundles" / "made" / "networks.py").write_text("def network(width):\n    return [width]\n")
    network = {"_target_": "bundles.made.networks.network", "width": "@max_epochs"}
    training = ["$run.initialize_run()", "$print('made', @network_def)"]
    return written(folder, {**CONFIG, "network_def": network, "training": training})


@pytest.mark.slow
def test_it_runs_from_another_working_directory(tmp_path: Path) -> None:
    bundle, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    bundle.mkdir()
    elsewhere.mkdir()
    done = run_bundle(unpacked(bundle), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "made [2]" in done.stdout


@pytest.mark.slow
def test_a_mistyped_override_ends_the_run_with_one_line(tmp_path: Path) -> None:
    file = written(tmp_path, CONFIG)
    done = run_bundle(file, "--epocs", "3", cwd=repository_root())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last == "error: unknown config key 'epocs'; did you mean 'max_epochs'?"
    assert "ran" not in done.stdout


CONFIG_DESCRIPTION = {
    "imports": ["$import common.run as run"],
    "width": 4,
    "net": {
        "_target_": "torch.nn.Linear",
        "in_features": "@width",
        "out_features": "$@width * 2",
        "bias": False,
    },
    "training": ["$run.component_description('net')"],
}


def described(folder: Path, **overrides: object) -> object:
    (folder / "configs").mkdir(exist_ok=True)
    file = folder / "configs" / "train.yaml"
    file.write_text(yaml.safe_dump(CONFIG_DESCRIPTION, sort_keys=False, width=1000))
    workflow = ConfigWorkflow(str(file), run_id="training", workflow_type=None, **overrides)
    workflow.initialize()
    (found,) = workflow.run()
    return found


def test_target_and_resolved_arguments_are_plain_data(tmp_path: Path) -> None:
    arguments = {"in_features": 4, "out_features": 8, "bias": False}
    found = described(tmp_path)
    assert found == {"target": "torch.nn.Linear", "arguments": arguments}
    assert json.loads(json.dumps(found)) == found


def test_overrides_count(tmp_path: Path) -> None:
    found = described(tmp_path, width=3, **{"net#bias": True})
    assert found == {
        "target": "torch.nn.Linear",
        "arguments": {"in_features": 3, "out_features": 6, "bias": True},
    }


def test_outside_of_a_run_it_says_so_description() -> None:
    with pytest.raises(UserError, match="no bundle run is going on"):
        component_description("net")


def test_words_are_replaced_wherever_they_stand() -> None:
    config = {
        "amp": "false",
        "resume": "true",
        "look": "none",
        "copy": "@amp",
        "list": ["true", {"deep": "null"}, "truth"],
        "made": {"_target_": "dict", "a": "false", "b": "$not @resume", "c": {"d": "true"}},
    }
    parser = ConfigParser(config)
    parser.parse()
    coerce_cli_literals(parser)
    assert parser.get_parsed_content("copy") is False
    assert parser.get_parsed_content("list") == [True, {"deep": None}, "truth"]
    assert parser.get_parsed_content("made") == {"a": False, "b": False, "c": {"d": True}}
    assert parser.get_parsed_content("look") == "none"
    assert parser.get("amp") is False and parser.get("resume") is True


def test_monais_tracking_gets_the_losses_of_a_dictionary() -> None:
    from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

    parser = ConfigParser(
        {
            "output_dir": "/r",
            "save_execute_config": False,
            "train": {"trainer": {}, "handlers": [{"shown": 1}]},
        }
    )
    ConfigWorkflow.patch_bundle_tracking(parser, DEFAULT_MLFLOW_SETTINGS)
    parser["save_execute_config"] = "/r + '/config_20260101_120000.json'"  # as MONAI writes it
    parser.parse()
    adapt_tracking(parser)
    assert parser.get("train#handlers#1#_target_") == "MLFlowHandler"
    assert parser.get_parsed_content("train#handlers#1#output_transform") is losses_of
    assert parser.get_parsed_content("save_execute_config") == "/r/config_20260101_120000.json"


def test_losses_are_the_single_numbers_of_an_output() -> None:
    output = {"loss": torch.tensor(0.5), "pred": torch.zeros(1, 1), "G_l1": torch.tensor(0.25), "image": None}
    assert losses_of(output) == {"loss": 0.5, "G_l1": 0.25}
    assert losses_of([{"loss": torch.tensor(2.0)}, {"loss": torch.tensor(2.0)}]) == {"loss": 2.0}
