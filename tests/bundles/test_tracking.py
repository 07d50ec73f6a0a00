"""The MLflow overlay of each bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.bundles.case import BundleCase
from tests.bundles.runs import command, finished

pytestmark = pytest.mark.slow


def train(case: BundleCase, data: Path, tmp_path: Path, **more: object) -> None:
    settings = case.settings(data, tmp_path / "run", val_interval=1, tracking_uri=store(tmp_path), **more)
    run = finished(command(case.arguments("training", [case.train, "mlflow"], **settings)))
    assert run.code == 0, run.err


def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/of all runs/mlflow.db"


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
