"""What a training leaves behind, whatever the bundle: files, logs, MLflow, a model that has learned."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.files import read_json
from common.inference.checkpoint import network_for
from tests.bundles.case import BundleCase
from tests.bundles.runs import Run, command, finished, forked

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


@pytest.mark.slow
def test_the_shipped_training_beats_the_mean_image(case: BundleCase, tmp_path: Path) -> None:
    """The plain two commands, at 64 x 64 pixels, in a bundle folder without data: phantoms are made first."""
    if not case.short:
        pytest.skip("learns from what its other stages make: see its test_pipeline.py")
    before = {path.name for path in case.root.iterdir()}
    root = {"bundle_root": tmp_path / "root"}
    trained = finished(command(case.arguments("training", "train", **root, **case.short)), timeout=550)
    assert trained.code == 0, trained.err
    assert "PHANTOM DATA" in trained.out + trained.err
    evaluated = finished(command(case.arguments("evaluating", "evaluate", **root)))
    assert evaluated.code == 0, evaluated.err
    metrics = read_json(tmp_path / "root" / "run" / "eval" / "metrics.json")["metrics"]
    fid = metrics["fid_gridvgg"]  # of two or three phantoms: the interval would say nothing
    assert fid["mean"] < 0.6 * fid["baselines"]["mean_image"]["mean"]
    assert {path.name for path in case.root.iterdir()} == before


def train(case: BundleCase, data: Path, tmp_path: Path, **more: object) -> None:
    settings = case.settings(data, tmp_path / "run", val_interval=1, tracking_uri=store(tmp_path), **more)
    run = finished(command(case.arguments("training", [case.train, "mlflow"], **settings)))
    assert run.code == 0, run.err


def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/of all runs/mlflow.db"


@pytest.mark.slow
def test_mlflow_gets_losses_metrics_and_settings(case: BundleCase, data: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    train(case, data, tmp_path, max_epochs=1)
    client = mlflow.MlflowClient(tracking_uri=store(tmp_path))
    [run] = client.search_runs([client.get_experiment_by_name(case.name).experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == str(tmp_path / "run")
    assert {"seed": "0", "batch_size": "2", "image_size": "32"}.items() <= run.data.params.items()
    losses = np.genfromtxt(tmp_path / "run" / "logs" / "losses.csv", delimiter=",", names=True)
    for name in ("G_loss", "D_loss", "loss"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [entry.step for entry in history] == list(range(1, 11))
        np.testing.assert_allclose([entry.value for entry in history], losses[name], rtol=1e-5)
    for name in case.metrics:
        [entry] = client.get_metric_history(run.info.run_id, f"val/{name}")
        assert entry.step == 10
    train(case, data, tmp_path, max_epochs=2, resume=True, mlflow_interval=4)
    runs = client.search_runs([run.info.experiment_id], order_by=["attributes.start_time"])
    assert len(runs) == 2  # the first was finished
    history = client.get_metric_history(runs[1].info.run_id, "loss")
    assert [entry.step for entry in history] == [12, 16, 20]


@pytest.mark.slow
def test_monais_own_option_works_too(case: BundleCase, data: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    settings = case.settings(data, tmp_path / "run", val_interval=1, max_epochs=1)
    parts = [*case.arguments("training", [case.train], **settings), "--tracking", "mlflow"]
    run = finished(command(parts))
    assert run.code == 0, run.err
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/run/mlruns.db")
    [entry] = client.search_runs([client.get_experiment_by_name("monai_experiment").experiment_id])
    losses = np.genfromtxt(tmp_path / "run" / "logs" / "losses.csv", delimiter=",", names=True)
    for name in ("G_loss", "D_loss", "loss"):
        history = client.get_metric_history(entry.info.run_id, name)
        np.testing.assert_allclose([value.value for value in history], losses[name], rtol=1e-5)
    assert case.metrics <= entry.data.metrics.keys()
    assert [file.path[:7] for file in client.list_artifacts(entry.info.run_id)] == ["config_"]
