"""Dice overlap of label maps, class by class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.metrics import Metric
from torch import Tensor

from common.metrics.ignite_metrics import as_given, batched, summed


def overlap_counts(first: Tensor, second: Tensor, classes: int) -> Tensor:
    """Pixels of each class 1..K in both maps, in the first and in the second: (3, K) int64.

    Args:
        first, second: class indices 0..K of one shape, any number type.
    """
    a, b = (label.round().long().flatten() for label in (first, second))
    joint = torch.bincount(a * (classes + 1) + b, minlength=(classes + 1) ** 2)
    table = joint.view(classes + 1, classes + 1)  # (K + 1, K + 1): class in the first, class in the second
    return torch.stack([table.diagonal(), table.sum(1), table.sum(0)])[:, 1:]


def dice(counts: Tensor) -> Tensor:
    """2 |A and B| / (|A| + |B|) of each class (K,) float64; NaN where neither map has it.

    Args:
        counts: (3, K), see `overlap_counts`; sums over slices give the Dice of volumes or whole sets.
    """
    both, first, second = counts.double()
    return 2 * both / (first + second)


def mean_dice(counts: Tensor) -> float:
    """The mean over the classes that either map has; NaN where there is none."""
    return float(dice(counts).nanmean())


class MeanDice(Metric):
    """The mean over classes of the Dice of one pass, all slices together. Higher is better, 1 at most.

    Args:
        classes: K; maps are (B, 1, H, W) class indices 0..K.
        output_transform: engine output -> (map, true map).
    """

    def __init__(
        self,
        classes: int,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.classes = classes
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.counts = torch.zeros(3, self.classes, dtype=torch.float64)

    def update(self, output: Any) -> None:
        """Adds a batch."""
        found, true = (batched(item).cpu() for item in output[:2])
        self.counts += overlap_counts(found, true, self.classes)

    def compute(self) -> float:
        """The mean over classes, over all processes; 0 for a pass without any structure."""
        counts = summed(self.counts)
        return mean_dice(counts) if counts.any() else 0.0
