"""``train_segmentation.yaml`` and ``evaluate_segmentation.yaml`` as a user starts them."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from bundles.lung_two_stage.segmentation.network import DenseUNet, UNet, UNetPlusPlus
from common.files import read_json, write_json
from common.inference.checkpoint import network_for
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.lung_two_stage.segmentation.made import write_scans
from tests.bundles.runs import Run, forked

TINY = {
    "max_epochs": 2,
    "batch_size": 4,
    "image_size": 16,
    "network_def#width": 4,
    "val_interval": 1,
    "decay_from": 1.0,
    "device": "cpu",
}
SMALL = {**TINY, "network_def#growth": 2, "network_def#layers": 1}


def train(folder: Path, data: Path, overlay: Sequence[str] = (), **settings: Any) -> Run:
    names = ["train_segmentation", *overlay]
    overrides = {"dataset_dir": data, "output_dir": folder, **settings}
    return forked(CASE.arguments("training", names, **overrides), folder.with_name(f"{folder.name}_log"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("scans"))


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """A run of two epochs."""
    folder = data.with_name("trained")
    run = train(folder, data, **SMALL)
    assert run.code == 0, run.err
    return folder


def test_a_training_leaves_a_model_its_log_and_pictures(trained: Path) -> None:
    about = read_json(trained / "models" / "model.json")
    assert set(about["metrics"]) == {"dice", "sensitivity"} and about["window_hu"] == [-1000, 400]
    assert {name: len(part) for name, part in about["splits"].items()} == {"train": 4, "val": 3, "test": 1}
    assert about["slices"]["train"] == 11  # 8 with a nodule, 30 % without
    network = network_for(trained / "models" / "model.pt", torch.nn.Identity())
    assert isinstance(network, DenseUNet)
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    with (trained / "logs" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and {"S_dice", "S_bce", "S_loss"} <= set(rows[0])
    assert list((trained / "logs").glob("events.*"))


def test_a_resumed_run_is_the_unbroken_one(trained: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = train(folder, data, **{**SMALL, "max_epochs": 1})
    assert first.code == 0, first.err
    second = train(folder, data, **SMALL, resume="true")
    assert second.code == 0, second.err
    for name in ("models/model.pt", "logs/losses.csv"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize(("overlay", "kind"), [("unet", UNet), ("unet_plus_plus", UNetPlusPlus)])
def test_the_baselines_are_overlays(overlay: str, kind: type) -> None:
    """Their trainings are part of the quick start."""
    parser = ConfigParser()
    parser.read_config([str(CASE.configs / f"{name}.yaml") for name in ("train_segmentation", overlay)])
    parser["network_def#width"] = 4
    assert isinstance(parser.get_parsed_content("network_def"), kind)
    assert parser["output_dir"].endswith(f"/{overlay}'")


def test_several_models_in_one_table(trained: Path, data: Path, tmp_path: Path) -> None:
    model = trained / "models" / "model.pt"
    overrides = {"dataset_dir": data, "output_dir": tmp_path, "device": "cpu"}
    models = str({"first": str(model), "second": str(model)})
    run = forked(
        CASE.arguments("evaluating", "evaluate_segmentation", models=models, **overrides), tmp_path / "log"
    )
    assert run.code == 0, run.err
    result = read_json(tmp_path / "eval" / "metrics.json")
    assert list(result["methods"]) == ["first", "second", "untrained first", "empty mask"]
    assert result["data"]["scans"] == result["data"]["nodules"] == 1 and result["data"]["slices"] == 6
    assert result["methods"]["first"] == result["methods"]["second"]
    assert (tmp_path / "eval" / "panel.png").is_file() and "second" in run.out


def test_a_model_that_has_seen_the_test_patients_is_refused(
    trained: Path, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "other" / "model.pt"
    shutil.copytree(trained / "models", model.parent)
    facts = read_json(model.with_suffix(".json"))
    facts["splits"]["train"] += facts["splits"].pop("test")
    write_json(model.with_suffix(".json"), facts)
    parser = ConfigParser()
    parser.read_config(str(CASE.configs / "evaluate_segmentation.yaml"))
    parser.update({"dataset_dir": str(data), "device": "cpu"})
    parser["models"] = {"first": str(trained / "models" / "model.pt"), "second": str(model)}
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("evaluating#1")
    assert "was trained with patient" in str(caught.value.__cause__)
