"""A threshold found in the values themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256


def otsu(values: NDArray[Any]) -> float:
    """The threshold between two classes of values with the greatest variance between them (Otsu 1979)."""
    counts, edges = np.histogram(values, LEVELS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    between = np.nan_to_num(below * above * (means[0] - means[1]) ** 2)
    # Between two clusters far apart all thresholds are as good: the middle one.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best[len(best) // 2]])
