"""Trainings that are judged on the same test slices, and what their differences say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value

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
        both = self.resamples.beside(Resamples.apart(self.seeds))
        value = both.distance(lambda counts: statistic(counts[:images].numpy(), counts[images:].numpy()))
        return replace(value, n=images)


def sentence(task: str, metric: str, differences: Mapping[str, Value]) -> str:
    """What the differences of a metric to training with real slices alone say, and no more."""
    parts = [
        f"{regime} {_verdict(value)} ({metric} {_shown(value)})" for regime, value in differences.items()
    ]
    return f"{task}, against real slices alone: {'; '.join(parts) or 'nothing was compared'}"


def _verdict(value: Value) -> str:
    if not math.isfinite(value.mean):
        return "cannot be judged"
    if not value.bounded:
        return "cannot be judged with so few patients"
    return "is better" if value.low > 0 else "is worse" if value.high < 0 else "is not clearly different"


def _shown(value: Value) -> str:
    return value.said("+.3f")
