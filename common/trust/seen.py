"""What a segmenter found in a set of images, against the conditions they were asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.random import generator
from common.trust.components import Parts, compare_parts
from common.trust.segmenting import mean_dice, overlaps

SHIFTS = 5  # each image is compared with as many others' conditions
PART_NAMES = ("wanted", "lost", "invented")

LEAST_MARGIN = 0.1
"""Of Dice, by which a segmenter must tell its own conditions from others'."""


@dataclass(frozen=True)
class Seen:
    """What the segmenter found in one set, against one set of conditions.

    Attributes:
        counts: (N, K, 3) of `overlaps`, float64.
        parts: of `compare_parts`.
        resamples: of the N images.
    """

    counts: Tensor
    parts: Parts
    resamples: Resamples

    def dice(self, index: int | None = None) -> Value:
        """Of one structure, or the mean over all; images are pooled."""
        return self.resamples.ratio(self._of(index), mean_dice).within(0, 1)

    def sensitivity(self, index: int | None = None) -> Value:
        """The share of the condition's pixels that was found."""
        return self.resamples.ratio(self._of(index), mean_sensitivity).within(0, 1)

    def invented(self, index: int | None = None) -> Value:
        """Structures an image that the condition has nothing of."""
        return self.resamples.mean(_summed(self.parts.invented, index))

    def lost(self, index: int | None = None) -> Value:
        """Structures of the condition, an image, in which nothing was found."""
        return self.resamples.mean(_summed(self.parts.lost, index))

    def _of(self, index: int | None) -> Tensor:
        return self.counts if index is None else self.counts[:, index : index + 1]


def seen(found: Tensor, conditions: Tensor, classes: int, resamples: Resamples) -> Seen:
    """Class indices found and wanted, (N, 1, S, S) each."""
    return Seen(overlaps(found, conditions, classes), compare_parts(found, conditions, classes), resamples)


def shuffled(found: Tensor, conditions: Tensor, classes: int, resamples: Resamples, seed: int) -> Seen:
    """Each image against the conditions of `SHIFTS` other images, summed; of one image, against none."""
    order = generator(seed, "faithfulness", "shuffled").permutation(len(found))
    shifts = range(1, min(SHIFTS, len(found) - 1) + 1)
    others = [seen(found, conditions[_moved(order, shift)], classes, resamples) for shift in shifts]
    if not others:
        return seen(found, torch.zeros_like(conditions), classes, resamples)
    parts = [np.mean([getattr(each.parts, name) for each in others], axis=0) for name in PART_NAMES]
    return Seen(torch.stack([each.counts for each in others]).sum(0), Parts(*parts), resamples)


def condition_index(own: Seen, good: Seen, bad: Seen) -> Value:
    """Where the Dice lies between that of others' conditions (0) and that of held-out real images (1).

    NaN where the segmenter tells nothing: it finds held-out structures hardly better than others' conditions.
    """
    if not can_judge(good, bad):
        return Value(math.nan, math.nan, math.nan, len(own.counts))
    first, second = len(own.counts), len(good.counts)
    parts = torch.zeros(first + second, 3, *own.counts.shape[1:], dtype=torch.float64)  # (N + M, 3, K, 3)
    parts[:first, 0], parts[:first, 1], parts[first:, 2] = own.counts, bad.counts, good.counts
    value = own.resamples.beside(good.resamples).ratio(parts, _index)
    return replace(value, n=first)


def can_judge(good: Seen, bad: Seen) -> bool:
    """Whether the segmenter tells held-out images' own conditions from others'."""
    return good.dice().mean - bad.dice().mean >= LEAST_MARGIN


def mean_sensitivity(sums: Tensor) -> float:
    """The mean over structures of the share found of what was wanted; of sums (K, 3) of `overlaps`."""
    both, _, wanted = sums.T
    return float((both / wanted).nanmean())


def _index(sums: Tensor) -> float:
    own, bad, good = (mean_dice(part) for part in sums)
    return (own - bad) / (good - bad) if good > bad else math.nan


def _summed(counts: np.ndarray, index: int | None) -> Tensor:
    chosen = counts.sum(1) if index is None else counts[:, index]
    return torch.from_numpy(np.asarray(chosen, np.float64))


def _moved(order: np.ndarray, shift: int) -> np.ndarray:
    """For each image the place of another one: the next but ``shift`` in a drawn order."""
    places = np.empty_like(order)
    places[order] = np.roll(order, -shift)
    return places
