"""FID of infinitely many patients (Chong & Forsyth 2020): what remains of it without the bias of few."""

from __future__ import annotations

import math
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
LEFT_OUT = 20
"""Parts of each set that are left out in turn: each costs ten decompositions."""


@dataclass(frozen=True)
class Extrapolation:
    """A line through FID over the inverse number of images.

    Attributes:
        value: where it meets 0, that is infinitely many patients, with its interval; at least 0.
        numbers: how many generated images a part has, for each of `PARTS`.
        means: the mean FID of the parts of each cut.
    """

    value: Value
    numbers: Sequence[float]
    means: Sequence[float]


def fid_infinity(real: Tensor, fake: Tensor, resamples: Resamples, seed: int = 0) -> Extrapolation | None:
    """The FID that the sets would have with infinitely many patients each; None for fewer than `LEAST` images
    or `PARTS` patients of a set.

    Chong & Forsyth thin the generated images alone, as their real statistics rest on 50 000 images. Here both
    sets are few, and each biases the value by about 1 / number (their equation 5): both are thinned alike,
    and one line over the share that is left removes the two. The sets are cut by patient: slices of one
    patient stay together, for it is patients that there are few of. The line is straight where there are more
    patients than features; with fewer it bends, and the value is then a guess.

    Args:
        real, fake: features (N, D) and (M, D).
        resamples: of both sets side by side (N + M); `LEFT_OUT` parts of each set are left out for the
            interval. There is none where a cut has a part of a single patient.
        seed: of the cuts.
    """
    split, groups = len(real), torch.from_numpy(resamples.groups)
    sides = [groups[:split], groups[split:]]
    if min(len(real), len(fake)) < LEAST or min(len(side.unique()) for side in sides) < PARTS[-1]:
        return None
    cuts = [_cut(sides, parts, seed) for parts in PARTS]
    numbers = [_thinned(sides, cut) for cut in cuts]

    def means(weights: Tensor) -> list[float]:
        return [_mean_fid(real, fake, weights * part) for part in cuts]

    value = resamples.distance(lambda weights: _intercept(numbers, means(weights)), LEFT_OUT)
    bounded = replace(value, mean=max(value.mean, 0.0), low=max(value.low, 0.0), high=max(value.high, 0.0))
    if not value.bounded:
        bounded = replace(bounded, low=math.nan, high=math.nan)
    whole = torch.ones(len(real) + len(fake), dtype=torch.float64)
    return Extrapolation(replace(bounded, n=len(fake)), [len(fake) / each for each in numbers], means(whole))


def _cut(sides: Sequence[Tensor], parts: int, seed: int) -> Tensor:
    """Which images belong to which part: (parts, N + M) of 0 and 1, ones once in each column.

    Patients are dealt in turn, those with most images first, the order of equals drawn: parts are of about as
    many patients and images.
    """
    numbers, which = generator(seed, "fid infinity", parts), []
    for side in sides:
        names, places, counts = side.unique(return_inverse=True, return_counts=True)
        order = numbers.permutation(len(names))
        order = order[np.argsort(-counts.numpy()[order], kind="stable")]
        dealt = np.empty(len(names), np.int64)
        dealt[order] = np.arange(len(names)) % parts
        which.append(torch.from_numpy(dealt)[places])
    return (torch.cat(which) == torch.arange(parts)[:, None]).double()


def _thinned(sides: Sequence[Tensor], cut: Tensor) -> float:
    """How many times fewer patients a part has than the whole, as the mean over parts and both sets."""
    split = len(sides[0])
    found = [
        len(side.unique()) / len(side[part > 0].unique())
        for side, columns in zip(sides, (cut[:, :split], cut[:, split:]), strict=True)
        for part in columns
    ]
    return float(np.mean(found))


def _mean_fid(real: Tensor, fake: Tensor, weights: Tensor) -> float:
    """Over the parts, each with its own weights (parts, N + M); NaN where one has too few images."""
    split = len(real)
    if any(float(side.sum()) < 2 for part in weights for side in (part[:split], part[split:])):
        return math.nan
    return float(np.mean([fid(real, fake, part[:split], part[split:]) for part in weights]))


def _intercept(numbers: Sequence[float], means: Sequence[float]) -> float:
    """Of the least-squares line over how many times fewer patients there are, at infinitely many."""
    return float(np.polynomial.Polynomial.fit(numbers, means, 1).convert().coef[0])
