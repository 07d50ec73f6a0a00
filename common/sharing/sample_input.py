"""What a trained generator takes, made up: to export it and to compare the export with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.random import generator

LATENT = "latent"


def sample_input(metadata: Mapping[str, Any], info: Mapping[str, Any], batch: int, seed: int = 0) -> Tensor:
    """A batch for the generator, float32: (B, latent) from N(0, 1), or class indices (B, C, S, S).

    Args:
        metadata: the bundle's, which says what kind of input it is.
        info: facts of the trained model (``model.json``), which say its sizes where they differ.
        batch: B.
        seed: of the drawn values.
    Raises:
        UserError: the model wants more than one input.
    """
    described = metadata["network_data_format"]["inputs"]["image"]
    arguments = info.get("network", {}).get("arguments", {})
    drawn = generator(seed, "sample input")
    if described["format"] == LATENT:
        if arguments.get("classes"):
            raise UserError(
                "a model with classes takes noise and class; only those with one input are exported"
            )
        size = (batch, info.get("latent", described["num_channels"]))
        return torch.from_numpy(drawn.standard_normal(size)).float()
    shape = (batch, described["num_channels"], *[_side(described, info)] * len(described["spatial_shape"]))
    if described["format"] == "segmentation":
        classes = arguments.get("classes", int(described["value_range"][1]))
        return torch.from_numpy(drawn.integers(classes + 1, size=shape)).float()
    lower, upper = described["value_range"]
    return torch.from_numpy(drawn.uniform(lower, upper, shape)).float()


def _side(described: Mapping[str, Any], info: Mapping[str, Any]) -> int:
    """Of the images: the trained model's, or the first of the declared ones (``128*n`` is 128)."""
    return int(info.get("image_size") or str(described["spatial_shape"][0]).partition("*")[0])
