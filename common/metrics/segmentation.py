"""Dice overlap of label maps, class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from numpy.typing import NDArray
from scipy import ndimage
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


SMALLEST_SHARE = 0.0005  # of the image: smaller parts are specks, not structures
FEWEST_PIXELS = 4
NEIGHBOURS = np.ones((3, 3), bool)  # parts touch at corners too


@dataclass(frozen=True)
class ComponentCounts:
    """Of each image and structure (N, K): how many connected parts there are, and have no counterpart.

    Attributes:
        wanted: parts of the condition.
        lost: those in which nothing was found.
        invented: parts found that touch no pixel of the condition's structure.
    """

    wanted: NDArray[np.int64]
    lost: NDArray[np.int64]
    invented: NDArray[np.int64]

    def listed(
        self, counts: NDArray[np.int64], structures: Sequence[str]
    ) -> list[tuple[int, dict[str, int]]]:
        """The images with any: place, and the number by structure; those with most come first."""
        order = np.argsort(-counts.sum(1), kind="stable")
        return [
            (int(place), {name: int(n) for name, n in zip(structures, counts[place], strict=True) if n})
            for place in order
            if counts[place].sum()
        ]


def smallest_component(side: int) -> int:
    """The fewest pixels of a part that counts, in images of ``side`` pixels."""
    return max(FEWEST_PIXELS, round(SMALLEST_SHARE * side**2))


def compare_components(found: Tensor, conditions: Tensor, classes: int) -> ComponentCounts:
    """Counts the parts of two label maps, class indices (N, 1, S, S)."""
    smallest = smallest_component(found.shape[-1])
    counts = np.zeros((3, len(found), classes), np.int64)
    drawn, wanted = (labels[:, 0].round().numpy() for labels in (found, conditions))
    for place in range(len(found)):
        for index in range(classes):
            a, b = (each[place] == index + 1 for each in (drawn, wanted))
            total, lost = _unmatched(b, a, smallest)
            counts[:, place, index] = total, lost, _unmatched(a, b, smallest)[1]
    return ComponentCounts(*counts)


def _unmatched(mask: NDArray, other: NDArray, smallest: int) -> tuple[int, int]:
    """How many parts of ``mask`` (S, S) there are, and how many without a pixel of ``other``."""
    if not mask.any():
        return 0, 0
    parts, number = ndimage.label(mask, NEIGHBOURS)
    sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:]
    shared = np.bincount(parts[other], minlength=number + 1)[1:]
    counted = sizes >= smallest
    return int(counted.sum()), int((counted & (shared == 0)).sum())
