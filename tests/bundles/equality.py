"""What makes a training independent of how many processes share its batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from common.rng import make_rng
from common.training.precision import Precision
from common.training.trainer import prepare_batch


class FrozenNorm(nn.BatchNorm2d):
    """A BatchNorm that keeps to its running statistics: those of a batch are each process's own."""

    def train(self, mode: bool = True) -> FrozenNorm:
        return super().train(False)


def frozen(network: nn.Module) -> nn.Module:
    """The network with every BatchNorm frozen."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FrozenNorm
    return network


class LatentOfSample:
    """A ``prepare_batch`` whose noise belongs to the sample, not to the process that visits it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, batch: Any, precision: Precision) -> dict[str, Any]:
        drawn = [
            make_rng(0, "latent", sample).standard_normal(self.size) for sample in batch["sample"].tolist()
        ]
        latent = torch.tensor(drawn, dtype=torch.float32, device=precision.device)
        return {**prepare_batch(batch, precision), "latent": latent}
