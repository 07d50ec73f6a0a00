"""The autoencoder and its training."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from bundles.dcgan_covid.autoencoder import (
    DenseAutoencoder,
    dense_stack,
    examples,
    image_to_image,
    mean_image_and_target,
)
from common.errors import UserError
from common.explorer.explorer import dense_layers
from common.files import read_json
from common.inference.checkpoint import load_weights, network_for
from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.dcgan_covid.made import TINY, training
from tests.bundles.runs import Run, command, fingerprints, finished, forked
from tests.common.explorer.made import decode


def linear_sizes(network: nn.Module) -> list[tuple[int, int]]:
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return [(layer.in_features, layer.out_features) for layer in layers]


@pytest.mark.parametrize(("size", "count"), [(64, 2_188_419), (128, 8_492_163)])
def test_five_layers_down_and_the_mirror_up(size: int, count: int) -> None:
    with torch.device("meta"):
        network = DenseAutoencoder(size)
    down = [(size**2, 256), (256, 128), (128, 64), (64, 32), (32, 3)]
    assert linear_sizes(network.encoder) == down
    assert linear_sizes(network.decoder) == [(wide, narrow) for narrow, wide in reversed(down)]
    assert sum(value.numel() for value in network.parameters()) == count


@pytest.mark.parametrize("latent", [2, 3])
def test_shapes_and_range(latent: int) -> None:
    network = DenseAutoencoder(16, latent, [8, 8, 8, 8])
    image = torch.rand(5, 1, 16, 16) * 2 - 1
    assert network.encode(image).shape == (5, latent)
    for made in (network(image), network.decode(1000 * torch.randn(5, latent))):
        assert made.shape == (5, 1, 16, 16) and made.abs().max() <= 1


@pytest.mark.parametrize("latent", [1, 4, 100])
def test_a_latent_that_cannot_be_looked_at_is_refused(latent: int) -> None:
    with pytest.raises(UserError, match=f"latent {latent} cannot be looked at; take 2 or 3"):
        DenseAutoencoder(16, latent)


def test_the_page_decodes_what_the_decoder_does() -> None:
    torch.manual_seed(0)
    network = DenseAutoencoder(16, 3, [8, 8, 8, 8])
    latents = torch.randn(4, 3) * 20
    shown = decode(dense_layers(network.decoder), latents.numpy(), (-1, 1))
    expected = network.decode(latents)[:, 0].detach().add(1).mul(127.5).round().numpy()
    assert expected.std() > 1
    assert np.abs(shown - expected).max() <= 1


def test_no_activation_follows_the_last_layer() -> None:
    layers = [type(layer) for layer in dense_stack([4, 3, 2])]
    assert layers == [nn.Linear, nn.LeakyReLU, nn.Linear]


def test_weights_of_other_sizes_are_named(tmp_path: Path) -> None:
    torch.save(DenseAutoencoder(16, 2, [8, 8]).state_dict(), tmp_path / "autoencoder.pt")
    said = r"\(its latent size is 2, the network's 3, its image size is 16, the network's 32\)"
    with pytest.raises(UserError, match=said):
        load_weights(DenseAutoencoder(32, 3, [8, 8]), tmp_path / "autoencoder.pt", "")


IMAGES = np.stack([np.full((1, 2, 2), level, np.float32) for level in (-1.0, 0.0, 0.4)])


class Made(SimpleNamespace):
    """As much of a dataset as is asked for."""

    images: Any = IMAGES

    def __len__(self) -> int:
        return len(self.images)


def test_the_target_is_the_input() -> None:
    image, target = image_to_image({"image": torch.ones(2, 1, 4, 4), "class": torch.zeros(2)}, "cpu")
    assert image is target and image.shape == (2, 1, 4, 4)


def test_the_baseline_predicts_the_mean_training_image() -> None:
    target = torch.from_numpy(IMAGES[2:].repeat(5, axis=0))
    output = {"pred": torch.zeros_like(target), "label": target, "image": target}
    mean, truth, _ = mean_image_and_target(Made())(output)  # type: ignore[arg-type]
    assert mean.shape == truth.shape == (5, 1, 2, 2)
    torch.testing.assert_close(mean, torch.full_like(target, -0.2))
    torch.testing.assert_close(truth, target)


def test_examples_are_spread_over_the_set() -> None:
    many = Made(images=np.arange(15, dtype=np.float32)[:, None, None, None].repeat(4, 2).repeat(4, 3))
    shown = examples(many)  # type: ignore[arg-type]
    assert shown["image"][:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert torch.equal(shown["latent"], shown["image"])
    assert len(examples(Made())["image"]) == 3  # type: ignore[arg-type]


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
