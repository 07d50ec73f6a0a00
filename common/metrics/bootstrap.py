"""Bootstrap intervals (Efron & Tibshirani 1993) over patients: slices of one patient are not independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95


@dataclass(frozen=True)
class Value:
    """A metric's value over ``n`` images with its 95 % bootstrap interval; NaN for no or NaN images."""

    mean: float
    low: float
    high: float
    n: int

    def at_least(self, bound: float) -> Value:
        """The same value with an interval that does not go below ``bound``."""
        return replace(self, low=max(self.low, bound))

    def plain(self) -> dict[str, Any]:
        """For JSON, which knows no NaN: ``{"mean", "interval", "n"}`` with None instead."""
        low, high = _finite(self.low), _finite(self.high)
        return {"mean": _finite(self.mean), "interval": [low, high], "n": self.n}


class Resamples:
    """Statistics of a set of images with their intervals, all from the same resamples.

    Args:
        counts: how often each image is drawn in each resample (resamples, N), see `resample_counts`.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    def of(self, usable: Tensor) -> Resamples:
        """The same resamples, of the images where ``usable`` (N,) bool holds."""
        return Resamples(self.counts[:, usable])

    def beside(self, others: Resamples) -> Resamples:
        """Resamples of two sets drawn apart, as of one: this set's images (N) come before the others' (M)."""
        return Resamples(torch.cat([self.counts, others.counts], dim=1))  # (R, N + M)

    def mean(self, values: Tensor) -> Value:
        """The mean of one value an image (N,) float64."""
        parts = torch.stack([values, torch.ones_like(values)], dim=1)  # (N, 2)
        return self.ratio(parts, lambda sums: float(sums[0] / sums[1]))

    def ratio(self, parts: Tensor, statistic: Callable[[Tensor], float]) -> Value:
        """A function of sums over images, such as a ratio of means.

        Args:
            parts: what each image adds to the sums, (N, ...) float64.
            statistic: called with the sums (...).
        """
        sums = torch.tensordot(self.counts, parts, dims=1)  # (resamples, ...)
        return self._value(statistic(parts.sum(0)), lambda value: percentile_interval(statistic, sums))

    def distance(self, statistic: Callable[[Tensor], float], most: int | None = None) -> Value:
        """A distance of distributions, called with how often each image counts (N,), see `centred_interval`.

        Args:
            most: use as many of the resamples, where each is dear.
        """
        counts = self.counts[:most]
        value = statistic(torch.ones(counts.shape[1], dtype=torch.float64)) if counts.shape[1] else math.nan
        return self._value(value, lambda value: centred_interval(statistic, counts, value))

    def distances(self, statistic: Callable[[Tensor], Tensor]) -> Value:
        """As `distance`, of a statistic that takes many weightings (R, N) at once and gives (R,) float64."""
        once = torch.ones(1, self.counts.shape[1], dtype=torch.float64)
        value, *resampled = statistic(torch.cat([once, self.counts])).tolist()
        return self._value(value, lambda value: _moved(torch.tensor(resampled, dtype=torch.float64), value))

    def _value(self, value: float, interval: Callable[[float], tuple[float, float]]) -> Value:
        images = self.counts.shape[1]
        return Value(value, *interval(value), images) if images else Value(math.nan, math.nan, math.nan, 0)


def resample_counts(
    patients: Sequence[str] | None, length: int, resamples: int, numbers: np.random.Generator
) -> Tensor:
    """How often each image is drawn in each resample: (resamples, length) float64.

    Whole patients are drawn with replacement (cluster bootstrap), as many as there are. Without patients,
    or with one only, images are drawn.

    Args:
        patients: one id an image, or None.
        numbers: the source of randomness.
    """
    groups = np.arange(length)
    if patients is not None and len(set(patients)) > 1:
        groups = np.unique(np.asarray(patients), return_inverse=True)[1]
    clusters = int(groups.max()) + 1 if length else 0
    drawn = numbers.multinomial(clusters, np.full(clusters, 1 / max(clusters, 1)), size=resamples)
    return torch.from_numpy(drawn[:, groups].astype(np.float64))  # (R, clusters) -> (R, length)


def percentile_interval(statistic: Callable[[Tensor], float], rows: Tensor) -> tuple[float, float]:
    """The percentile interval of ``statistic(row)`` over the resamples; fits means and ratios of means.

    A row is a resample: how often each image is drawn (N,), or sums over images drawn so often.

    Resamples on which the statistic is NaN (no lesion drawn) are left out.
    """
    return _quantiles(_values(statistic, rows))


def centred_interval(
    statistic: Callable[[Tensor], float], counts: Tensor, value: float
) -> tuple[float, float]:
    """The percentile interval moved so that the resamples' mean falls on ``value``; fits FID and KID.

    A resample has fewer distinct images than the set, which alone raises FID: the plain interval can lie
    above the value that it belongs to. The moved one shows the spread of the value at this number of
    images.
    """
    return _moved(_values(statistic, counts), value)


def _moved(values: Tensor, value: float) -> tuple[float, float]:
    """The interval of resampled ``values`` (R,), moved so that their mean is ``value``."""
    low, high = _quantiles(values + (value - values.nanmean()))
    return min(low, value), max(high, value)


def _values(statistic: Callable[[Tensor], float], rows: Tensor) -> Tensor:
    return torch.tensor([statistic(row) for row in rows], dtype=torch.float64)


def _quantiles(values: Tensor) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = values.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
