"""Bootstrap intervals (Efron & Tibshirani 1993) over patients: slices of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

LEVEL = 0.95


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


def percentile_interval(statistic: Callable[[Tensor], float], counts: Tensor) -> tuple[float, float]:
    """The percentile interval of ``statistic(weights)`` over the resamples; fits means and ratios of means.

    Resamples on which the statistic is NaN (no lesion drawn) are left out.
    """
    return _quantiles(_values(statistic, counts))


def centred_interval(
    statistic: Callable[[Tensor], float], counts: Tensor, value: float
) -> tuple[float, float]:
    """The percentile interval moved so that the resamples' mean falls on ``value``; fits FID and KID.

    A resample has fewer distinct images than the set, which alone raises FID: the plain interval can lie
    above the value that it belongs to. The moved one shows the spread of the value at this number of
    images.
    """
    values = _values(statistic, counts)
    low, high = _quantiles(values + (value - values.nanmean()))
    return min(low, value), max(high, value)


def _values(statistic: Callable[[Tensor], float], counts: Tensor) -> Tensor:
    return torch.tensor([statistic(weights) for weights in counts], dtype=torch.float64)


def _quantiles(values: Tensor) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = values.nanquantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high
