"""Trainings that are judged on the same test slices, and what their differences say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value

Metric = Callable[[NDArray, NDArray], float]  # (a test slice's outcome (N, ...), counts (N,)) -> number


@dataclass(frozen=True)
class TrainingComparison:
    """Outcomes of trainings on the same test slices.

    Intervals are of both chances: which patients were tested, and which seeds were trained with. A resample
    draws both anew, the same ones for all regimes.

    Args:
        outcomes: by regime, one (N, ...) a seed.
        resamples: of the N slices.
        seeds: of the seeds (R, S): how often each counts; None for once each in every resample.
    """

    outcomes: Mapping[str, Sequence[NDArray]]
    resamples: Resamples
    seeds: Tensor | None = None

    def value(self, regime: str, metric: Metric) -> Value:
        """The mean over seeds, with the bootstrap interval over patients."""
        return self._interval(lambda counts, seeds: self._mean(regime, metric, counts, seeds))

    def difference(self, first: str, second: str, metric: Metric) -> Value:
        """The first regime's mean less the second's; both are resampled alike."""
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
        counts = self.resamples.counts.numpy()
        once = np.ones(len(next(iter(self.outcomes.values()))))
        seeds = np.tile(once, (len(counts), 1)) if self.seeds is None else self.seeds.numpy()
        drawn = [statistic(*pair) for pair in zip(counts, seeds, strict=True)]
        values = torch.tensor(drawn, dtype=torch.float64)
        ends = values.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Value(statistic(np.ones(counts.shape[1]), once), ends[0], ends[1], counts.shape[1])


def sentence(task: str, metric: str, differences: Mapping[str, Value]) -> str:
    """What the differences of a metric to training with real slices alone say, and no more."""
    parts = [
        f"{regime} {_verdict(value)} ({metric} {_shown(value)})" for regime, value in differences.items()
    ]
    return f"{task}, against real slices alone: {'; '.join(parts) or 'nothing was compared'}"


def _verdict(value: Value) -> str:
    if not math.isfinite(value.mean):
        return "cannot be judged"
    return "is better" if value.low > 0 else "is worse" if value.high < 0 else "is not clearly different"


def _shown(value: Value) -> str:
    return f"{value.mean:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
