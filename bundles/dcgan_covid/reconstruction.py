"""What the autoencoder's training feeds, measures and says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.images import ImageDataset
from common.inference.models import model_info
from common.inference.outputs import prediction_target_condition
from common.metrics.baselines import mean_image

SHOWN = 8
MSE, MEAN_IMAGE = "mse", "mse_mean_image"


def image_to_image(
    batch: Mapping[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor]:
    """A ``prepare_batch`` of MONAI's evaluators: image (B, 1, S, S) in [-1, 1] in, the same as target."""
    image = batch["image"].to(device, non_blocking=non_blocking)
    return image, image


def mean_image_and_target(
    train: ImageDataset,
) -> Callable[[Mapping[str, Any] | Sequence[Mapping[str, Any]]], tuple[Tensor, ...]]:
    """An ``output_transform`` for the baseline: the training set's mean image in the prediction's place."""
    mean = mean_image(torch.from_numpy(train.images), 1)  # (1, 1, S, S)

    def transform(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
        _, target, condition = prediction_target_condition(output)
        return mean.to(target.device).expand_as(target), target, condition

    return transform


def examples(dataset: ImageDataset) -> dict[str, Tensor]:
    """Images spread over the set, as `common.handlers.images.ImageGrid` wants them: input and truth."""
    places = np.linspace(0, len(dataset) - 1, min(SHOWN, len(dataset))).round().astype(int)
    images = torch.from_numpy(dataset.images[places])  # (B, 1, S, S)
    return {"latent": images, "image": images}


def report(path: str | os.PathLike[str]) -> None:
    """Says how good the kept model is beside the baseline, in one line."""
    metrics = model_info(path)["metrics"]
    print(f"{path}: validation MSE {metrics[MSE]:.4f}, of the mean training image {metrics[MEAN_IMAGE]:.4f}")
