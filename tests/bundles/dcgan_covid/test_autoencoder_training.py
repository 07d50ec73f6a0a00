"""``run training`` of the autoencoder, as a user starts it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.files import read_json
from common.inference.checkpoint import load_weights, network_for
from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.dcgan_covid.made_halves import TINY, training
from tests.bundles.runs import Run, command, fingerprints, finished, forked

Trained = tuple[Path, Run]


def test_files_apart_from_those_of_the_gan(autoencoder: Trained) -> None:
    folder, run = autoencoder
    assert run.code == 0, run.err
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("logs/autoencoder/events.out.tfevents.")}
    pictures = {f"logs/autoencoder/samples/iteration_{step:06d}.png" for step in (50, 100, 150)}
    resumes = {f"models/autoencoder/{name}.pt" for name in ("resume", "resume_previous")}
    models = {"models/autoencoder.pt", "models/autoencoder.json", "models/autoencoder/split.json"}
    assert len(events) == 1
    assert files == {*models, *resumes, *events, *pictures, "logs/autoencoder/losses.csv"}


def test_it_beats_the_mean_image_and_says_so(autoencoder: Trained) -> None:
    folder, run = autoencoder
    metrics = read_json(folder / "models" / "autoencoder.json")["metrics"]
    assert metrics["mse"] < 0.3 * metrics["mse_mean_image"]
    said = f"validation MSE {metrics['mse']:.4f}, of the mean training image {metrics['mse_mean_image']:.4f}"
    assert run.out.rstrip().endswith(said)


def test_the_model_is_the_network_it_names(autoencoder: Trained) -> None:
    path = autoencoder[0] / "models" / "autoencoder.pt"
    network = load_weights(network_for(path, torch.nn.Identity()), path, "")
    assert network(torch.zeros(2, 1, 16, 16)).shape == (2, 1, 16, 16)
    info = read_json(path.with_suffix(".json"))
    assert info["latent"] == 3 and info["classes"] == ["covid", "noncovid"]


def test_tensorboard_holds_errors_and_reconstructions(autoencoder: Trained) -> None:
    events = EventAccumulator(str(autoencoder[0] / "logs" / "autoencoder")).Reload()
    assert {"train/AE_mse", "val/mse", "val/mse_mean_image"} <= set(events.Tags()["scalars"])
    values = [event.value for event in events.Scalars("val/mse")]
    assert len(values) == 6 and values[-1] < 0.5 * values[0]
    pictures = events.Images("samples")
    assert [(image.width, image.height) for image in pictures] == [(8 * 18 - 2, 2 * 18 - 2)] * 3


def test_a_resumed_run_is_bitwise_the_straight_one(
    autoencoder: Trained, halves: Path, tmp_path: Path
) -> None:
    straight = autoencoder[0]
    for epochs, resume in ((5, False), (TINY["max_epochs"], True)):
        parts = training(halves, tmp_path / "run", max_epochs=epochs, resume=resume)
        assert forked(parts, tmp_path / "log").code == 0
    for name in ("models/autoencoder.pt", "models/autoencoder.json", "logs/autoencoder/losses.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (straight / name).read_bytes(), name


def test_what_is_refused(autoencoder: Trained, halves: Path, tmp_path: Path) -> None:
    shutil.copytree(autoencoder[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    other = training(halves, tmp_path / "run", resume=True, max_epochs=40, latent=2)
    assert "cannot resume: latent was 3, is 2" in forked(other, tmp_path / "log").error
    assert fingerprints(tmp_path / "run") == before
    deep = forked(training(halves, tmp_path / "deep", latent=8), tmp_path / "log").error
    assert "latent 8 cannot be looked at" in deep and not (tmp_path / "deep").exists()


@pytest.mark.slow
def test_the_shipped_training_beats_the_mean_image_on_phantoms(tmp_path: Path) -> None:
    """As shipped but for the size, in a bundle folder without data: phantoms are made first."""
    given = {"bundle_root": tmp_path / "root", "image_size": 64, "max_epochs": 40}
    trained = finished(command(CASE.arguments("training", "train_autoencoder", **given)), timeout=550)
    assert trained.code == 0, trained.err
    assert "PHANTOM DATA" in trained.out + trained.err
    metrics = read_json(tmp_path / "root" / "run" / "models" / "autoencoder.json")["metrics"]
    assert metrics["mse"] < 0.8 * metrics["mse_mean_image"]


@pytest.mark.slow
def test_two_processes_learn_what_one_does_with_the_doubled_batch(halves: Path, tmp_path: Path) -> None:
    """The network has no batch statistics and draws nothing: the losses are those of one process."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    losses = {}
    for name, launcher, batch_size in (("two", torchrun, 4), ("one", [], 8)):
        given = {**TINY, "dataset_dir": halves, "output_dir": tmp_path / name, "amp": False}
        given |= {"batch_size": batch_size, "max_epochs": 1, "val_interval": 1}
        configs = ["train_autoencoder", "multi_gpu_autoencoder"]
        run = finished(command(CASE.arguments("training", configs, **given), launcher=launcher))
        assert run.code == 0, run.err
        assert run.out.count("validation MSE") == 1
        table = tmp_path / name / "logs" / "autoencoder" / "losses.csv"
        losses[name] = np.genfromtxt(table, delimiter=",", names=True)["AE_mse"]
    np.testing.assert_allclose(losses["two"], losses["one"], rtol=1e-4)
