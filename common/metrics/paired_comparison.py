"""Trainings that are judged on the same test slices, and what their differences say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.metrics.bootstrap import LEVEL, Resamples, Value

Metric = Callable[[NDArray, NDArray], float]  # (a test slice's outcome (N, ...), counts (N,)) -> number


@dataclass(frozen=True)
class TrainingComparison:
    """Outcomes of trainings on the same test slices.

    Intervals are of both chances: which patients were tested, and which seeds were trained with. A patient
    or a seed is left out of all regimes alike.

    Args:
        outcomes: by regime, one (N, ...) a seed.
        resamples: of the N slices.
        seeds: of the S seeds (R, S), see `common.metrics.bootstrap.resample_counts`; None where the seeds are
            the ones in question. A single seed is taken for that, too.
    """

    outcomes: Mapping[str, Sequence[NDArray]]
    resamples: Resamples
    seeds: Tensor | None = None

    def value(self, regime: str, metric: Metric) -> Value:
        """The mean over seeds, with its interval."""
        return self._interval(lambda counts, seeds: self._mean(regime, metric, counts, seeds))

    def difference(self, first: str, second: str, metric: Metric) -> Value:
        """The first regime's mean less the second's; the interval is of the pairs."""
        return self._interval(
            lambda counts, seeds: (
                self._mean(first, metric, counts, seeds) - self._mean(second, metric, counts, seeds)
            )
        )

    def by_seed(self, regime: str, metric: Metric) -> list[float | None]:
        """The metric of each training."""
        once = np.ones(self.resamples.counts.shape[1])
        values = [metric(outcome, once) for outcome in self.outcomes[regime]]
        return [value if math.isfinite(value) else None for value in values]

    def _mean(self, regime: str, metric: Metric, counts: NDArray, seeds: NDArray) -> float:
        drawn = [k for k, times in enumerate(seeds) if times]
        values = [metric(self.outcomes[regime][k], counts) for k in drawn]
        return float(np.average(values, weights=seeds[drawn]))

    def _interval(self, statistic: Callable[[NDArray, NDArray], float]) -> Value:
        images, trainings = self.resamples.counts.shape[1], len(next(iter(self.outcomes.values())))
        if self.seeds is None or trainings == 1:
            return self.resamples.distance(lambda counts: statistic(counts.numpy(), np.ones(trainings)))
        both = self.resamples.join(Resamples(self.seeds))
        value = both.distance(lambda counts: statistic(counts[:images].numpy(), counts[images:].numpy()))
        return replace(value, n=images)


def holm(differences: Mapping[str, Value]) -> dict[str, float]:
    """The p-values of differences that are judged together, adjusted for their number (Holm 1979).

    Returns:
        By name; NaN for a difference without a p-value, which does not count among them.

    Example:
        >>> two = {"a": Value(1.0, 0.5, 1.5, 9, 9, 0.01), "b": Value(1.0, 0.1, 1.9, 9, 9, 0.04)}
        >>> holm(two)
        {'a': 0.02, 'b': 0.04}
    """
    known = sorted((each.p_zero, name) for name, each in differences.items() if not math.isnan(each.p_zero))
    adjusted, highest = dict.fromkeys(differences, math.nan), 0.0
    for rank, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = highest
    return adjusted


def describe_differences(
    task: str,
    metric: str,
    differences: Mapping[str, Value],
    adjusted: Mapping[str, float] | None = None,
    to: str = "real slices alone",
) -> str:
    """What the differences of a metric to another training say, and no more.

    Args:
        task: what was trained.
        metric: of the differences.
        differences: by regime.
        adjusted: p-values of `holm` where more differences are judged together; None for these alone.
        to: the training that they are differences to.
    """
    ps = holm(differences) if adjusted is None else adjusted
    parts = [
        f"{regime} {_verdict(value, ps[regime])} ({metric} {_shown(value)})"
        for regime, value in differences.items()
    ]
    return f"{task}, against {to}: {'; '.join(parts) or 'nothing was compared'}"


def _verdict(value: Value, p: float) -> str:
    """Clear differences have an interval without 0 and are clear among all that are judged together."""
    if not math.isfinite(value.mean):
        return "cannot be judged"
    if not value.bounded:
        return "cannot be judged with so few patients"
    if p >= 1 - LEVEL or value.low <= 0 <= value.high:
        return "is not clearly different"
    return "is better" if value.low > 0 else "is worse"


def _shown(value: Value) -> str:
    return value.text("+.3f")
