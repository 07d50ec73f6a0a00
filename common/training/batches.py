"""From a loader's batch to what the steps see."""

from __future__ import annotations

from typing import Any

import torch

from common.training.precision import Precision
from common.training.steps import Batch


def prepare_batch(batch: Batch, precision: Precision) -> dict[str, Any]:
    """Brings every tensor of the batch to the device and layout."""
    return {
        name: precision.images(value) if torch.is_tensor(value) else value for name, value in batch.items()
    }


class WithLatent:
    """Adds ``latent`` (B, size), drawn from N(0, I) with torch's generator of the device, for unconditional nets.

    The generator's state travels in the resume file, so the draws go on where they stopped.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, batch: Batch, precision: Precision) -> dict[str, Any]:
        prepared = prepare_batch(batch, precision)
        count = len(prepared["image"])
        return {**prepared, "latent": torch.randn(count, self.size, device=precision.device)}
