"""The autoencoder's layers, and how they travel into a page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
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
from common.inference.checkpoint import load_weights
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
