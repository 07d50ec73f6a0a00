"""The autoencoder of the latent explorer: a CT slice to two or three values, and back."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.data.datasets import ImageDataset
from common.errors import UserError
from common.inference.checkpoint import model_info
from common.inference.prepare_batch import prediction_target_condition
from common.metrics.baselines import mean_image

SHOWN = (2, 3)
"""Latent sizes that a map can show."""
WIDTHS = (256, 128, 64, 32)
SLOPE = 0.2


class DenseAutoencoder(nn.Module):
    """Five dense layers down to a latent of two or three values, and five up again.

    (B, 1, S, S) in [-1, 1] -> their reconstructions. LeakyReLU follows every layer but the last ones; the
    latent has no activation, the image a tanh. At S = 128 and a latent of 3:

    =======  ===============================  ==========
    part     values from layer to layer       parameters
    =======  ===============================  ==========
    encoder  16 384, 256, 128, 64, 32, 3       4 237 891
    decoder  3, 32, 64, 128, 256, 16 384       4 254 272
    =======  ===============================  ==========

    8 492 163 parameters at 128, 2 188 419 at 64; nearly all lie between 256 values and the image. That width
    keeps the decoder small: with 8-bit weights it takes 5 MB of a web page, and plain JavaScript evaluates it
    in a few milliseconds.

    Args:
        image_size: S in pixels.
        latent: 2 or 3.
        widths: outputs of each encoder layer but the last; the decoder mirrors them.
    Raises:
        UserError: another latent size.

    Example:
        >>> network = DenseAutoencoder(image_size=16, latent=2, widths=[8, 4])
        >>> network.encode(torch.zeros(5, 1, 16, 16)).shape
        torch.Size([5, 2])
    """

    def __init__(self, image_size: int = 128, latent: int = 3, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if latent not in SHOWN:
            raise UserError(f"latent {latent} cannot be looked at; take 2 or 3")
        sizes = [image_size**2, *widths, latent]
        self.image_size, self.latent = image_size, latent
        self.encoder = dense_stack(sizes)
        self.decoder = dense_stack(sizes[::-1]).append(nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 1, S, S) -> their reconstructions (B, 1, S, S) in [-1, 1]."""
        return self.decode(self.encode(image))

    def encode(self, image: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, latent), of any range."""
        return self.encoder(image.flatten(1))  # (B, 1, S, S) -> (B, S S)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, 1, S, S)."""
        return self.decoder(latent).float().reshape(-1, 1, self.image_size, self.image_size)

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Reads the sizes of the network that a state_dict belongs to, for error messages."""
        first = state["encoder.0.weight"]  # (512, S S)
        deepest = state["decoder.0.weight"]  # (64, latent)
        return {"latent size": deepest.shape[1], "image size": math.isqrt(first.shape[1])}


def dense_stack(sizes: Sequence[int]) -> nn.Sequential:
    """Returns dense layers from ``sizes[0]`` to ``sizes[-1]`` values, with LeakyReLU in between."""
    layers: list[nn.Module] = []
    for source, target in pairwise(sizes):
        layers += [nn.Linear(source, target), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])


RECONSTRUCTED_IMAGES = 8
MSE, MEAN_IMAGE = "mse", "mse_mean_image"


def image_to_image(
    batch: Mapping[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch`` of MONAI's evaluators: image (B, 1, S, S) in [-1, 1] as input and as target."""
    image = batch["image"].to(device, non_blocking=non_blocking)
    return image, image


def mean_image_and_target(
    train: ImageDataset,
) -> Callable[[Mapping[str, Any] | Sequence[Mapping[str, Any]]], tuple[Tensor, ...]]:
    """Returns an ``output_transform`` for the baseline, with the mean training image as prediction."""
    mean = mean_image(torch.from_numpy(train.images), 1)  # (1, 1, S, S)

    def transform(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
        _, target, condition = prediction_target_condition(output)
        return mean.to(target.device).expand_as(target), target, condition

    return transform


def examples(dataset: ImageDataset) -> dict[str, Tensor]:
    """Returns images spread over the set: input and truth of a `common.handlers.image_logging.ImageGrid`."""
    indices = np.linspace(0, len(dataset) - 1, min(RECONSTRUCTED_IMAGES, len(dataset))).round().astype(int)
    images = torch.from_numpy(dataset.images[indices])  # (B, 1, S, S)
    return {"latent": images, "image": images}


def report(path: str | os.PathLike[str]) -> None:
    """Prints the error of the saved model and of the baseline, in one line."""
    metrics = model_info(path)["metrics"]
    print(f"{path}: validation MSE {metrics[MSE]:.4f}, of the mean training image {metrics[MEAN_IMAGE]:.4f}")
