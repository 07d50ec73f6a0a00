"""What a training leaves behind, whatever the bundle."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.files import read_json
from common.inference.checkpoint import network_for
from tests.bundles.case import BundleCase
from tests.bundles.runs import Run, forked

Trained = tuple[Path, Run]
LOGGED = {"loss", "D_loss", "G_loss", "D_adversarial", "G_adversarial"}


def test_it_ends_well_and_writes_these_files(case: BundleCase, trained: Trained) -> None:
    folder, run = trained
    assert run.code == 0, run.err
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("logs/events.out.tfevents.")}
    kept = ("model.pt", "model.json", "resume.pt", "resume_previous.pt", "split.json")
    models = {f"models/{name}" for name in kept}
    pictures = {f"logs/samples/iteration_{step:06d}.png" for step in (10, 20)}
    assert len(events) == 1
    assert files == {*models, *events, *pictures, *case.files, "logs/losses.csv"}


def test_the_model_is_a_flat_state_dict_of_the_network_it_names(case: BundleCase, trained: Trained) -> None:
    path = trained[0] / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    target = read_json(path.with_suffix(".json"))["network"]["target"]
    assert target.startswith(f"{case.network_module}.")
    network_for(path, otherwise=torch.nn.Identity()).load_state_dict(state, strict=True)


def test_every_loss_is_in_the_table_and_in_tensorboard(case: BundleCase, trained: Trained) -> None:
    with (trained[0] / "logs" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = LOGGED | case.logged
    assert set(rows[0]) == {"iteration", "epoch", *names}
    assert [(int(row["iteration"]), int(row["epoch"])) for row in rows] == [
        (step, 1 + (step > 10)) for step in range(1, 21)
    ]
    events = EventAccumulator(str(trained[0] / "logs")).Reload()
    assert {f"train/{name}" for name in names} <= set(events.Tags()["scalars"])
    for name in names:
        found = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert found == {
            int(row["iteration"]): pytest.approx(float(row[name]), rel=1e-6) for row in rows if row[name]
        }


def test_tensorboard_holds_the_validation_metrics(case: BundleCase, trained: Trained) -> None:
    metrics = read_json(trained[0] / "models" / "model.json")["metrics"]
    events = EventAccumulator(str(trained[0] / "logs")).Reload()
    assert set(metrics) == case.metrics
    assert {f"val/{name}" for name in metrics} <= set(events.Tags()["scalars"])


def test_tensorboard_holds_the_image_grids(case: BundleCase, trained: Trained) -> None:
    events = EventAccumulator(str(trained[0] / "logs")).Reload()
    images = events.Images("samples")
    assert [image.step for image in images] == [10, 20]
    assert {(image.width, image.height) for image in images} == {(8 * 34 - 2, case.rows * 34 - 2)}


def test_same_seed_same_bytes(case: BundleCase, trained: Trained, data: Path, tmp_path: Path) -> None:
    run = forked(case.training(data, tmp_path / "again", max_epochs=2), tmp_path / "again")
    assert run.code == 0, run.err
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[0] / name).read_bytes(), name


def test_it_starts_from_given_weights(case: BundleCase, trained: Trained, data: Path, tmp_path: Path) -> None:
    given, output = trained[0] / "models" / "resume.pt", tmp_path / "run"
    run = forked(case.training(data, output, pretrained=given, max_epochs=1), tmp_path / "log")
    assert run.code == 0, run.err
    line = next(line for line in run.out.splitlines() if f"{given}: G starts from" in line)
    assert "D starts from" in line and "(not" not in line
    shipped = case.root / "models" / "missing.pt"
    error = forked(case.training(data, tmp_path / "none", pretrained=shipped), tmp_path / "log2").error
    assert error.startswith(f"{shipped}: no such file of weights")
    assert not (tmp_path / "none" / "models" / "model.pt").exists()
