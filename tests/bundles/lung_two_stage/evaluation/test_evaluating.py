"""``train_diagnosis.yaml`` and ``evaluate.yaml`` as a user starts them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from common.files import read_json
from tests.bundles.lung_two_stage.made_work import made_work, slice_bank, write_composites
from tests.bundles.runs import ROOT, Run, forked

CONFIGS = ROOT / "bundles" / "lung_two_stage" / "configs"


def run(run_id: str, config: str, work: Path, log: Path, **settings: Any) -> Run:
    given = {"work_dir": work, "bases_dir": work / "extraction" / "normals", **settings}
    parts = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    return forked(["run", run_id, "--config_file", str(CONFIGS / f"{config}.yaml"), *parts], log)


def train(work: Path, log: Path, **settings: Any) -> Run:
    tiny = {"max_epochs": 1, "network_def#width": 2, "network_def#levels": 2, "synthetic": 12}
    return run("training", "train_diagnosis", work, log, **{**tiny, **settings})


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before leave, and a diagnosis trained for an epoch."""
    folder = made_work(tmp_path_factory.mktemp("work"))
    shutil.copytree(folder / "composites", folder / "enhanced")
    done = train(folder, folder / "log")
    assert done.code == 0, done.err
    return folder


def test_a_diagnosis_knows_its_classes(work: Path) -> None:
    about = read_json(work / "diagnosis" / "models" / "model.json")
    assert about["classes"] == ["none", "solid", "part_solid"] and about["regime"] == "both"
    assert set(about["metrics"]) == {"auc", "balanced_accuracy"}
    state = torch.load(work / "diagnosis" / "models" / "model.pt", weights_only=True)
    assert len(state["last.weight"]) == 3
    with (work / "diagnosis" / "logs" / "losses.csv").open(newline="") as file:
        assert "S_ce" in next(csv.DictReader(file))


def test_an_evaluation_leaves_numbers_and_a_panel(work: Path, tmp_path: Path) -> None:
    given = {"num_samples": 8, "resamples": 3, "seeds": 1, "synthetic": 12, "output_dir": tmp_path / "out"}
    given |= {"budget": "{'iterations':2,'batch_size':4}", "purposes": "['nodule']"}
    done = run("evaluating", "evaluate", work, tmp_path / "log", **given)
    assert done.code == 0, done.err
    found = read_json(tmp_path / "out" / "metrics.json")
    assert {"composites", "enhanced", "real_real"} < set(found["table_3"]["fid_gridvgg"])
    assert "is_diagnosis_of_3" in found["table_3"] and found["nodules"]["contrast_kept"] == 1
    assert found["effect"]["changed_share"] == 0  # nothing was enhanced, and no noise is as strong as nothing
    changes = found["effect"]["kid_change"]
    assert changes["enhanced"]["mean"] == 0 and changes["composites_noised"]["mean"] == 0
    purpose = found["purpose"]["nodule"]
    assert set(purpose["metrics"]["auc"]) == {"real", "oversampled", "synthetic", "both"}
    assert purpose["sentence"] in done.out and "Table III" in done.out
    assert (tmp_path / "out" / "panel.png").is_file()


def test_refusals(work: Path, tmp_path: Path) -> None:
    error = train(work, tmp_path / "log", regime="fake", output_dir=tmp_path / "run").error
    assert "regime 'fake' is unknown" in error
    copied = shutil.copytree(work / "extraction", tmp_path / "extraction")
    slice_bank(["t", "m"], 2, [1, 0]).save(copied / "tests")
    error = run("evaluating", "evaluate", work, tmp_path / "log", extraction_dir=copied).error
    assert "patient m is in" in error
    unfinished = write_composites(tmp_path / "shards")
    (unfinished / "manifest.jsonl").unlink()
    error = run("evaluating", "evaluate", work, tmp_path / "log", enhanced_dir=unfinished).error
    assert "manifest.jsonl: not there" in error


@pytest.mark.slow
def test_a_stopped_and_resumed_diagnosis_is_the_straight_one(work: Path, tmp_path: Path) -> None:
    for name, parts in (("straight", [2]), ("stopped", [1, 2])):
        for number, last in enumerate(parts):
            given = {"max_epochs": last, "resume": number > 0, "decay_from": 1.0, "val_interval": 1}
            done = train(work, tmp_path / "log", output_dir=tmp_path / name, **given)
            assert done.code == 0, done.err
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


@pytest.mark.slow
def test_the_trained_diagnosis_beats_an_untrained_one(work: Path, tmp_path: Path) -> None:
    given = {"max_epochs": 12, "network_def#width": 8, "synthetic": 40, "task": "nodule"}
    done = train(work, tmp_path / "log", output_dir=tmp_path / "run", **given)
    assert done.code == 0, done.err
    assert read_json(tmp_path / "run" / "models" / "model.json")["metrics"]["auc"] > 0.8
