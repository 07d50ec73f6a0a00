"""Overlap of label maps: Dice class by class, and connected components without a counterpart.

Dice is that of pixel counts summed over slices, volumes or whole sets. MONAI's `DiceMetric` averages Dice
over images instead, in which a small structure of one slice weighs as much as a large one of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from common.metrics.ignite_metrics import SumMetric, as_given


def overlap_counts(first: Tensor, second: Tensor, classes: int) -> Tensor:
    """Counts the pixels of each class 1..K in both maps, in the first and in the second: (3, K) int64.

    Args:
        first, second: class indices 0..K of one shape, any number type.

    Example:
        >>> overlap_counts(torch.tensor([1, 1, 2, 0]), torch.tensor([1, 0, 2, 2]), classes=2).tolist()
        [[1, 1], [2, 1], [1, 2]]
    """
    a, b = (label.round().long().flatten() for label in (first, second))
    joint = torch.bincount(a * (classes + 1) + b, minlength=(classes + 1) ** 2)
    table = joint.view(classes + 1, classes + 1)  # (K + 1, K + 1): class in the first, class in the second
    return torch.stack([table.diagonal(), table.sum(1), table.sum(0)])[:, 1:]


def dice(counts: Tensor) -> Tensor:
    """2 |A and B| / (|A| + |B|) of each class (K,) float64; NaN if neither map has the class.

    Args:
        counts: (3, K), see `overlap_counts`; sums over slices give the Dice of volumes or whole sets.
    """
    both, first, second = counts.double()
    return 2 * both / (first + second)


def mean_dice(counts: Tensor) -> float:
    """Computes the mean Dice over the classes that either map has; NaN if there are none.

    Example:
        >>> mean_dice(torch.tensor([[1, 0], [2, 0], [2, 0]]))
        0.5
    """
    return float(dice(counts).nanmean())


class MeanDice(SumMetric):
    """The mean over classes of the Dice of one pass, all slices together. Higher is better, 1 at most.

    A pass without any structure gives 0.

    Args:
        classes: K; maps are (B, 1, H, W) class indices 0..K.
        output_transform: engine output -> (map, true map).

    Example:
        >>> metric = MeanDice(classes=1)
        >>> metric.update((torch.tensor([[[[1, 1, 0, 0]]]]), torch.tensor([[[[0, 1, 0, 0]]]])))
        >>> round(metric.compute(), 4)
        0.6667
    """

    def __init__(
        self,
        classes: int,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = (3, classes)
        super().__init__(output_transform, device)

    def batch_sums(self, *batch: Tensor) -> Tensor:
        """Computes the sums of `overlap_counts`."""
        return overlap_counts(batch[0], batch[1], self.shape[1])

    def value(self, sums: Tensor) -> float:
        """Computes the mean over classes."""
        return mean_dice(sums) if sums.any() else 0.0


SMALLEST_SHARE = 0.0005  # of the image; smaller components are specks
FEWEST_PIXELS = 4
CONNECTIVITY = np.ones((3, 3), bool)  # components touch at corners too


@dataclass(frozen=True)
class ComponentCounts:
    """The number of connected components of each image and structure (N, K).

    Attributes:
        expected: components of the condition.
        lost: those of which nothing was found.
        invented: components found that touch no pixel of the condition's structure.
    """

    expected: NDArray[np.int64]
    lost: NDArray[np.int64]
    invented: NDArray[np.int64]

    def listed(
        self, counts: NDArray[np.int64], structures: Sequence[str]
    ) -> list[tuple[int, dict[str, int]]]:
        """Lists the images with any components in ``counts``, most first: index and number by structure."""
        order = np.argsort(-counts.sum(1), kind="stable")
        return [
            (int(index), {name: int(n) for name, n in zip(structures, counts[index], strict=True) if n})
            for index in order
            if counts[index].sum()
        ]


def smallest_component(side: int) -> int:
    """Computes the fewest pixels of a component that counts, in images of ``side`` pixels."""
    return max(FEWEST_PIXELS, round(SMALLEST_SHARE * side**2))


def compare_components(predicted: Tensor, conditions: Tensor, classes: int) -> ComponentCounts:
    """Counts the components of two label maps, class indices (N, 1, S, S).

    Example:
        >>> condition = torch.zeros(1, 1, 8, 8)
        >>> condition[..., 1:4, 1:4] = 1
        >>> compare_components(torch.zeros_like(condition), condition, classes=1).lost.tolist()
        [[1]]
    """
    smallest = smallest_component(predicted.shape[-1])
    counts = np.zeros((3, len(predicted), classes), np.int64)
    predicted_maps, condition_maps = (labels[:, 0].round().numpy() for labels in (predicted, conditions))
    for index in range(len(predicted)):
        for number in range(classes):
            a, b = (each[index] == number + 1 for each in (predicted_maps, condition_maps))
            total, lost = _unmatched(b, a, smallest)
            counts[:, index, number] = total, lost, _unmatched(a, b, smallest)[1]
    return ComponentCounts(*counts)


def _unmatched(mask: NDArray, other: NDArray, smallest: int) -> tuple[int, int]:
    """Computes the number of components of ``mask`` (S, S), and of those without a pixel of ``other``."""
    if not mask.any():
        return 0, 0
    components, number = ndimage.label(mask, CONNECTIVITY)
    sizes = np.bincount(components.ravel(), minlength=number + 1)[1:]
    shared = np.bincount(components[other], minlength=number + 1)[1:]
    counted = sizes >= smallest
    return int(counted.sum()), int((counted & (shared == 0)).sum())
