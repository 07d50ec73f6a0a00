"""The number of modes, from how soon images repeat (the birthday paradox; Arora & Zhang 2017).

Among s draws of n equally likely modes two are alike with probability 1/2 where s (s - 1) = 2 n ln 2: 23
people for 365 days. Images are alike where their features are nearer than all but a few real images are to
their nearest neighbour; as many real images, measured in the same way, say what the number means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.neighbours import nearest
from common.metrics.pairs import Pairs

QUANTILE = 0.05  # of the real images have a neighbour that counts as alike
MOST = 2000  # images looked at; with all of them alike there are 2 million pairs
ORDERS = 1000  # in which images are drawn, fewer where there are many pairs
WORK = 2**24  # pairs times orders
ROUNDING = 1e-6  # relative, of float32


@dataclass(frozen=True)
class Birthday:
    """When images begin to repeat.

    Attributes:
        batch: the smallest number of images among which two are alike with probability 1/2; all that there
            were where that does not happen.
        reached: whether it happens. Otherwise ``batch`` and ``modes`` are lower bounds.
    """

    batch: int
    reached: bool

    @property
    def modes(self) -> float:
        """How many equally likely modes repeat as soon."""
        return self.batch * (self.batch - 1) / (2 * math.log(2))


def duplicate_threshold(real: Tensor, quantile: float = QUANTILE) -> float:
    """The distance below which two images count as alike: a quantile of real images' nearest distances.

    Args:
        real: features (N, D), at least two rows.
    """
    return float(nearest(real)[0].flatten().quantile(quantile))


def birthday(features: Tensor, threshold: float, numbers: np.random.Generator) -> Birthday:
    """When images with these features (N, D) begin to repeat; the first 2 000 are looked at.

    Args:
        threshold: see `duplicate_threshold`; pairs at most as far apart are alike.
        numbers: draws the orders in which images come.
    Raises:
        UserError: fewer than two images.
    """
    features = features[:MOST]
    count = len(features)
    if count < 2:
        raise UserError(f"{count} images cannot repeat; at least 2 are needed to count modes")
    firsts = first_repeats(alike_pairs(features, threshold).numpy(), count, numbers)
    batch = int(np.sort(firsts)[(len(firsts) - 1) // 2])  # half of the orders repeat within as many
    return Birthday(min(batch, count), batch <= count)


def alike_pairs(features: Tensor, threshold: float) -> Tensor:
    """Pairs of rows (N, D) at most ``threshold`` apart: indices (P, 2), the smaller one first."""
    pairs, found = Pairs(features), []
    for block in pairs:
        near = pairs.lower(block) <= threshold**2 * (1 + ROUNDING)
        rows, columns = near.nonzero(as_tuple=True)
        indices = torch.stack([rows + block.rows.start, columns + block.columns.start], dim=1)
        found.append(indices[indices[:, 0] < indices[:, 1]])
    every = torch.cat(found)  # (P, 2), with some that rounding let in
    return every[pairs.exact(every[:, 0], every[:, 1]).sqrt() <= threshold]


def first_repeats(alike: np.ndarray, count: int, numbers: np.random.Generator) -> np.ndarray:
    """How many of ``count`` images come until two are alike, in many orders; count + 1 where none are.

    Args:
        alike: (P, 2) indices.
    """
    orders = int(np.clip(WORK // max(len(alike), 1), 100, ORDERS))
    firsts = np.full(orders, count + 1)
    one, other = np.ascontiguousarray(alike.T)
    for order in range(orders if len(alike) else 0):
        places = numbers.permutation(count)
        firsts[order] = np.maximum(places[one], places[other]).min() + 1
    return firsts
