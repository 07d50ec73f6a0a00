"""Structures lost and invented: connected parts of one label map that the other has nothing of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

SMALLEST_SHARE = 0.0005  # of the image: smaller parts are specks, not structures
FEWEST_PIXELS = 4
NEIGHBOURS = np.ones((3, 3), bool)  # parts touch at corners too


@dataclass(frozen=True)
class Parts:
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


def smallest_part(side: int) -> int:
    """The fewest pixels of a part that counts, in images of ``side`` pixels."""
    return max(FEWEST_PIXELS, round(SMALLEST_SHARE * side**2))


def compare_parts(found: Tensor, conditions: Tensor, classes: int) -> Parts:
    """Counts the parts of two label maps, class indices (N, 1, S, S)."""
    smallest = smallest_part(found.shape[-1])
    counts = np.zeros((3, len(found), classes), np.int64)
    drawn, wanted = (labels[:, 0].round().numpy() for labels in (found, conditions))
    for place in range(len(found)):
        for index in range(classes):
            a, b = (each[place] == index + 1 for each in (drawn, wanted))
            total, lost = _unmatched(b, a, smallest)
            counts[:, place, index] = total, lost, _unmatched(a, b, smallest)[1]
    return Parts(*counts)


def _unmatched(mask: NDArray, other: NDArray, smallest: int) -> tuple[int, int]:
    """How many parts of ``mask`` (S, S) there are, and how many without a pixel of ``other``."""
    if not mask.any():
        return 0, 0
    parts, number = ndimage.label(mask, NEIGHBOURS)
    sizes = np.bincount(parts.ravel(), minlength=number + 1)[1:]
    shared = np.bincount(parts[other], minlength=number + 1)[1:]
    counted = sizes >= smallest
    return int(counted.sum()), int((counted & (shared == 0)).sum())
