"""FID of infinitely many images (Chong & Forsyth 2020): what remains of it without the bias of few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.fid import fid
from common.random import generator

PARTS = (1, 2, 3, 4)
"""Both sets are cut into so many parts; all parts of a cut are measured, so each image counts in each cut."""
LEAST = 2 * PARTS[-1]
"""Images of a set: no part has fewer than two."""
RESAMPLES = 40
"""Each costs ten decompositions."""


@dataclass(frozen=True)
class Extrapolation:
    """A line through FID over the inverse number of images.

    Attributes:
        value: where it meets 0, that is infinitely many images, with its bootstrap interval; at least 0.
        numbers: how many generated images a part has, for each of `PARTS`.
        means: the mean FID of the parts of each cut.
    """

    value: Value
    numbers: Sequence[float]
    means: Sequence[float]


def fid_infinity(real: Tensor, fake: Tensor, resamples: Resamples, seed: int = 0) -> Extrapolation | None:
    """The FID that the sets would have with infinitely many images each; None for fewer than `LEAST`.

    Chong & Forsyth thin the generated images alone, as their real statistics rest on 50 000 images. Here both
    sets are few, and each biases the value by about 1 / number (their equation 5): both are thinned alike,
    and one line over the share that is left removes the two. It is straight where there are more images than
    features; with fewer it bends, and the value is then a guess.

    Args:
        real, fake: features (N, D) and (M, D).
        resamples: of both sets side by side (R, N + M); `RESAMPLES` of them are used.
        seed: of the cuts.
    """
    if min(len(real), len(fake)) < LEAST:
        return None
    cuts = [_cut(len(real), len(fake), parts, seed) for parts in PARTS]

    def means(weights: Tensor) -> list[float]:
        return [_mean_fid(real, fake, weights * part) for part in cuts]

    value = resamples.distance(lambda weights: _intercept(means(weights)), RESAMPLES)
    bounded = replace(value, mean=max(value.mean, 0.0), low=max(value.low, 0.0), high=max(value.high, 0.0))
    whole = torch.ones(len(real) + len(fake), dtype=torch.float64)
    return Extrapolation(replace(bounded, n=len(fake)), [len(fake) / parts for parts in PARTS], means(whole))


def _cut(real: int, fake: int, parts: int, seed: int) -> Tensor:
    """Which images belong to which part: (parts, N + M) of 0 and 1, ones once in each column."""
    numbers = generator(seed, "fid infinity", parts)
    which = np.concatenate([numbers.permutation(count) % parts for count in (real, fake)])
    return torch.from_numpy(which == np.arange(parts)[:, None]).double()


def _mean_fid(real: Tensor, fake: Tensor, weights: Tensor) -> float:
    """Over the parts, each with its own weights (parts, N + M)."""
    split = len(real)
    return float(np.mean([fid(real, fake, part[:split], part[split:]) for part in weights]))


def _intercept(means: Sequence[float]) -> float:
    """Of the least-squares line over the number of parts, where there are none."""
    return float(np.polynomial.Polynomial.fit(PARTS, means, 1).convert().coef[0])
