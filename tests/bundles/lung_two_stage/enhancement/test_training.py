"""``train_enhancer.yaml`` and ``enhance.yaml`` as a user starts them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from bundles.lung_two_stage.composition.shards import Composites
from common.files import read_json
from common.networks.generators import ResnetGenerator
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.lung_two_stage.made_work import made_work
from tests.bundles.runs import Run, command, fingerprints, finished, forked

TINY = {
    "max_epochs": 1,
    "lambda_identity": 0.5,
    "network_def#width": 4,
    "network_def#blocks": 1,
    "discriminator_def#channels": 4,
    "val_interval": 1,
}


def train(work: Path, log: Path, **settings: Any) -> Run:
    return forked(CASE.arguments("training", "train_enhancer", work_dir=work, **{**TINY, **settings}), log)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stages before leave, and an enhancer trained for an epoch."""
    folder = made_work(tmp_path_factory.mktemp("work"))
    run = train(folder, folder / "log", output_dir=folder / "enhancer")
    assert run.code == 0, run.err
    return folder


def test_a_training_leaves_a_model_its_log_and_pictures(work: Path) -> None:
    folder = work / "enhancer"
    about = read_json(folder / "models" / "model.json")
    assert set(about["metrics"]) == {"fid_gridvgg", "before_fid_gridvgg", "lesion_faithfulness"}
    assert about["window_hu"] == [-1000, 400] and set(about["splits"]) == {"train", "val"}
    network = ResnetGenerator(**about["network"]["arguments"])
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    with (folder / "logs" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and {"G_nodules", "G_cycle_x", "G_identity_y", "D_X_adversarial"} <= set(rows[0])
    assert (folder / "logs" / "samples" / "iteration_000004.png").is_file()


def test_the_pools_travel_in_the_resume_file(work: Path) -> None:
    state = torch.load(work / "enhancer" / "models" / "resume.pt", weights_only=True)
    for name in ("D_X", "D_Y"):
        pool = state["steps"][name]["ranks"][0]
        assert pool["seen"] == 16 and len(pool["images"]) == 16
        assert pool["images"][0].shape == (1, 32, 32)


def test_the_trained_enhancer_goes_over_all_composites(work: Path, tmp_path: Path) -> None:
    run = forked(CASE.arguments("enhancement", "enhance", work_dir=work), tmp_path / "log")
    assert run.code == 0, run.err
    assert "20 enhanced composites in 4 shards" in run.out
    after = Composites(work / "enhanced")
    about = read_json(work / "enhancer" / "models" / "model.json")
    assert after.description["enhancer"]["metrics"] == about["metrics"]
    assert after[19].record["enhancer"]["iteration"] == 4


@pytest.mark.slow
def test_a_stopped_and_resumed_run_is_the_straight_one(work: Path, tmp_path: Path) -> None:
    for name, parts in (("straight", [2]), ("stopped", [1, 2])):
        for number, last in enumerate(parts):
            overrides = {"max_epochs": last, "resume": number > 0, "decay_from": 1.0, "pool_size": 3}
            run = train(work, tmp_path / "log", output_dir=tmp_path / name, **overrides)
            assert run.code == 0, run.err
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


@pytest.mark.slow
def test_two_processes_write_what_one_does(work: Path, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, parts in (("one", []), ("two", launcher)):
        arguments = CASE.arguments("enhancement", "enhance", work_dir=work, output_dir=tmp_path / name)
        run = finished(command(arguments, launcher=parts))
        assert run.code == 0, run.err
    files = [list(fingerprints(tmp_path / name).values()) for name in ("one", "two")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_the_trained_enhancer_keeps_nodules_and_distance(work: Path, tmp_path: Path) -> None:
    """An untrained one leaves composites as they are. So short a training brings them no nearer to real
    slices by features that see layout, but it must not move them away, and nodules stay nodules."""
    overrides = {"max_epochs": 40, "val_interval": 4, "val_smoothing": 1}
    overrides |= {"network_def#width": 8, "discriminator_def#channels": 16}
    run = train(work, tmp_path / "log", output_dir=tmp_path / "run", **overrides)
    assert run.code == 0, run.err
    metrics = read_json(tmp_path / "run" / "models" / "model.json")["metrics"]
    assert metrics["fid_gridvgg"] < 1.1 * metrics["before_fid_gridvgg"]
    assert metrics["lesion_faithfulness"] > 0.8
