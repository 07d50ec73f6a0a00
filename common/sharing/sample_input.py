"""What a trained generator takes, made up: to export it and to compare the export with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.random import generator

LATENT = "latent"


def sample_inputs(
    metadata: Mapping[str, Any], info: Mapping[str, Any], batch: int, seed: int = 0
) -> tuple[Tensor, ...]:
    """What the generator is called with: values (B, ...) and, where it has classes of images, indices (B,).

    Args:
        metadata: the bundle's, which says what kind of input it is.
        info: facts of the trained model (``model.json``), which say its sizes where they differ.
        batch: B.
        seed: of the drawn values.
    Returns:
        Float32 (B, latent) from N(0, 1), or (B, C, S, S) class indices or values in the declared range; with
        classes of images also int64 (B,), all of them in turn.
    """
    described = metadata["network_data_format"]["inputs"]["image"]
    classes = info.get("network", {}).get("arguments", {}).get("classes")
    drawn = generator(seed, "sample input")
    if described["format"] == LATENT:
        size = (batch, info.get("latent", described["num_channels"]))
        noise = torch.from_numpy(drawn.standard_normal(size)).float()
        return (noise, torch.arange(batch) % classes) if classes else (noise,)
    shape = (batch, described["num_channels"], *[_side(described, info)] * len(described["spatial_shape"]))
    lower, upper = described["value_range"]
    if described["format"] == "segmentation":
        most = int(upper) if classes is None else classes
        return (torch.from_numpy(drawn.integers(most + 1, size=shape)).float(),)
    return (torch.from_numpy(drawn.uniform(lower, upper, shape)).float(),)


def _side(described: Mapping[str, Any], info: Mapping[str, Any]) -> int:
    """Of the images: the trained model's, or the first of the declared ones (``128*n`` is 128)."""
    return int(info.get("image_size") or str(described["spatial_shape"][0]).partition("*")[0])
