"""Classification metrics that bootstrap weights can enter: area under the ROC curve, recalls, balanced
accuracy.

MONAI's `compute_roc_auc` takes no weights and refuses a resample without positives; SciPy's rank test gives
the same area.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import mannwhitneyu


def area_under_roc(scores: ArrayLike, positive: ArrayLike, counts: ArrayLike | None = None) -> float:
    """The probability that a positive has a higher score than a negative; ties count half (Hanley 1982).

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
    """The share of each class that was predicted, (``number``,) float64; NaN for a missing class.

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
    """The mean over classes of `recalls` (Brodersen et al. 2010), 1 / number for chance.

    NaN if a class is missing: the mean would be over other classes than in other resamples.

    Example:
        >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 1, 1], 2)
        0.75
    """
    return float(recalls(predicted, classes, number, counts).mean())


def macro_area(probabilities: ArrayLike, classes: ArrayLike, counts: ArrayLike | None = None) -> float:
    """The mean of `area_under_roc` of each class against the rest; for two classes that of the second.

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
