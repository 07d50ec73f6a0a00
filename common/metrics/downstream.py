"""Metrics of downstream tasks, and comparisons of trainings with intervals over patients and seeds.

The classification metrics take weights for the bootstrap. MONAI's `compute_roc_auc` takes none and refuses a
resample without positives; SciPy's rank test gives the same area.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor

from common.metrics.bootstrap import LEVEL, Resamples, Value

Metric = Callable[[NDArray, NDArray], float]
"""(outcome of each test slice (N, ...), how often each slice counts (N,)) -> number"""


@dataclass(frozen=True)
class TrainingComparison:
    """Outcomes of trainings on the same test slices.

    Intervals cover both the choice of test patients and the choice of seeds. A patient or a seed is left out
    of all regimes at once.

    Args:
        outcomes: by regime, one (N, ...) per seed.
        resamples: of the N slices.
        seeds: of the S seeds (R, S), see `common.metrics.bootstrap.resample_counts`; None if only these
            seeds matter, as with a single seed.

    Example:
        >>> outcomes = {"real": [np.array([1.0, 0, 0, 0])], "both": [np.array([1.0, 1, 1, 0])]}
        >>> resamples = Resamples.draw(list("abcd"), 4, 50, np.random.default_rng(0))
        >>> comparison = TrainingComparison(outcomes, resamples)
        >>> comparison.difference("both", "real", lambda hits, counts: hits @ counts / counts.sum()).mean
        0.5
    """

    outcomes: Mapping[str, Sequence[NDArray]]
    resamples: Resamples
    seeds: Tensor | None = None

    def value(self, regime: str, metric: Metric) -> Value:
        """Computes the mean over seeds with its interval."""
        return self._interval(lambda counts, seeds: self._mean(regime, metric, counts, seeds))

    def difference(self, first: str, second: str, metric: Metric) -> Value:
        """Computes the first regime's mean minus the second's, with the interval of the paired difference."""
        return self._interval(
            lambda counts, seeds: (
                self._mean(first, metric, counts, seeds) - self._mean(second, metric, counts, seeds)
            )
        )

    def by_seed(self, regime: str, metric: Metric) -> list[float | None]:
        """Computes the metric of each training; None if it is undefined."""
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
    """Adjusts the p-values of differences that are tested together for their number (Holm 1979).

    Returns:
        By name; NaN for a difference without a p-value, which does not count.

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
    """Says in one sentence whether trainings differ clearly from another one.

    Args:
        task: what was trained.
        metric: of the differences.
        differences: by regime.
        adjusted: p-values of `holm` if more differences are tested together; None for these alone.
        to: the training that the others are compared with.

    Example:
        >>> difference = Value(0.1, 0.05, 0.15, 9, 9, p_zero=0.001)
        >>> describe_differences("nodule", "auc", {"both": difference})
        'nodule, against real slices alone: both is better (auc +0.100 [+0.050, +0.150])'
    """
    ps = holm(differences) if adjusted is None else adjusted
    parts = [
        f"{regime} {_verdict(value, ps[regime])} ({metric} {value.text('+.3f')})"
        for regime, value in differences.items()
    ]
    return f"{task}, against {to}: {'; '.join(parts) or 'nothing was compared'}"


def _verdict(value: Value, p: float) -> str:
    """Judges a difference: clear if its interval excludes 0 and its adjusted p-value is small."""
    if not math.isfinite(value.mean):
        return "cannot be judged"
    if not value.bounded:
        return "cannot be judged with so few patients"
    if p >= 1 - LEVEL or value.low <= 0 <= value.high:
        return "is not clearly different"
    return "is better" if value.low > 0 else "is worse"


def area_under_roc(scores: ArrayLike, positive: ArrayLike, counts: ArrayLike | None = None) -> float:
    """Computes the chance that a positive scores higher than a negative; ties count half (Hanley 1982).

    Args:
        scores: (N,), higher for more likely positive.
        positive: (N,) bool.
        counts: (N,) how often each counts (bootstrap), whole numbers; once by default.
    Returns:
        0 to 1, 0.5 for chance; NaN if one of the classes is missing.

    Example:
        >>> area_under_roc([0.9, 0.8, 0.3, 0.1], [True, False, True, False])
        0.75
    """
    values, truth = _repeated(np.asarray(scores, np.float64), np.asarray(positive, bool), counts)
    above, below = values[truth], values[~truth]
    if not len(above) or not len(below):
        return math.nan
    return float(mannwhitneyu(above, below, method="asymptotic").statistic / (len(above) * len(below)))


def recalls(
    predicted: ArrayLike, classes: ArrayLike, number: int, counts: ArrayLike | None = None
) -> NDArray:
    """Computes the share of each class that was predicted, (``number``,) float64; NaN for a missing class.

    For two classes, 0 and 1, these are specificity and sensitivity.

    Args:
        predicted, classes: (N,) indices 0..number - 1.
        counts: as `area_under_roc`.

    Example:
        >>> recalls([0, 0, 0, 1], [0, 0, 1, 1], 2).tolist()
        [1.0, 0.5]
    """
    guess, true = np.asarray(predicted, np.int64), np.asarray(classes, np.int64)
    weights = np.ones(len(true)) if counts is None else np.asarray(counts, np.float64)
    total = np.bincount(true, weights, number)
    right = np.bincount(true, weights * (guess == true), number)
    return np.divide(right, total, out=np.full(number, np.nan), where=total > 0)


def balanced_accuracy(
    predicted: ArrayLike, classes: ArrayLike, number: int, counts: ArrayLike | None = None
) -> float:
    """Computes the mean over classes of `recalls` (Brodersen et al. 2010), 1 / number for chance.

    NaN if a class is missing: the mean would be over other classes than in other resamples.

    Example:
        >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 1, 1], 2)
        0.75
    """
    return float(recalls(predicted, classes, number, counts).mean())


def macro_area(probabilities: ArrayLike, classes: ArrayLike, counts: ArrayLike | None = None) -> float:
    """Averages `area_under_roc` of each class against the rest; for two classes, that of the second.

    Args:
        probabilities: (N, K).
        classes: (N,) indices 0..K - 1.

    Example:
        >>> macro_area([[0.6, 0.4], [0.7, 0.3]], [1, 0])
        1.0
    """
    values, true = np.asarray(probabilities), np.asarray(classes)
    if values.shape[1] == 2:
        return area_under_roc(values[:, 1], true == 1, counts)
    areas = [area_under_roc(values[:, k], true == k, counts) for k in range(values.shape[1])]
    return float(np.mean(areas))


def _repeated(values: NDArray, truth: NDArray, counts: ArrayLike | None) -> tuple[NDArray, NDArray]:
    if counts is None:
        return values, truth
    times = np.asarray(counts).astype(np.int64)
    return values.repeat(times), truth.repeat(times)
