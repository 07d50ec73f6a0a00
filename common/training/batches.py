"""From a loader's batch to what the steps see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from common.training.precision import Precision
from common.training.steps import Batch


class BatchGroups:
    """Groups an endless loader's batches: an iteration takes as many as its busiest step repeats."""

    def __init__(self, loader: DataLoader, size: int) -> None:
        self.loader, self.size = loader, size

    def __iter__(self) -> Iterator[list[Any]]:
        state = torch.get_rng_state()
        batches = iter(self.loader)  # draws a seed for its workers, which a resumed run must not see
        torch.set_rng_state(state)
        while True:
            yield [next(batches) for _ in range(self.size)]


def prepare_batch(batch: Batch, precision: Precision) -> dict[str, Any]:
    """Brings every tensor of the batch to the device and layout."""
    return {
        name: precision.images(value) if torch.is_tensor(value) else value for name, value in batch.items()
    }


class WithLatent:
    """A ``prepare_batch`` that adds ``latent`` (B, size), drawn from N(0, I), for unconditional nets.

    It draws from torch's generator of the device. That generator's state travels in the resume file, so the
    draws go on where they stopped; under several processes each draws its own.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, batch: Batch, precision: Precision) -> dict[str, Any]:
        prepared = prepare_batch(batch, precision)
        count = len(prepared["image"])
        return {**prepared, "latent": torch.randn(count, self.size, device=precision.device)}
