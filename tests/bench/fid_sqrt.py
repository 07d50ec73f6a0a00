"""FID's matrix square root at 2 048 dimensions against scipy's, as other FID code takes it."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import sqrtm

from common.metrics.fid import trace_of_root
from common.rng import make_rng
from tests.bench.harness import Result, alternate, benchmark, seconds

DIMENSION, SAMPLES, FACTORS = 2_048, 5_000, 64
GOAL = 3.0
TOLERANCE = 1e-6
REPEATS = 5


@benchmark("fid_sqrt")
def fid_sqrt_seconds() -> Result:
    """tr (S1 S2)^1/2 by a factor and a symmetric eigen-decomposition, against the trace of `sqrtm`.

    Raises:
        AssertionError: the two differ by more than `TOLERANCE`.
    """
    torch.set_num_threads(2)
    first, second = covariance(0), covariance(1)
    ours, plain = torch.from_numpy(first), torch.from_numpy(second)
    found, expected = float(trace_of_root(ours, plain)), root_trace(first, second)
    assert abs(found - expected) <= TOLERANCE * abs(expected), (found, expected)
    fast, slow = alternate(
        lambda: seconds(lambda: float(trace_of_root(ours, plain))),
        lambda: seconds(lambda: root_trace(first, second)),
        REPEATS,
    )
    return Result("fid_sqrt", slow / fast, GOAL, fast, slow, "s", REPEATS)


def root_trace(first: np.ndarray, second: np.ndarray) -> float:
    """As FID is mostly written: of the root of a product that is not symmetric."""
    return float(np.trace(sqrtm(first @ second)).real)


def covariance(seed: int) -> np.ndarray:
    """Of features as an extractor gives them: some strong factors, rectified; (D, D) float64."""
    numbers = make_rng(seed, "bench", "covariance")
    mixing = numbers.standard_normal((FACTORS, DIMENSION))
    factors = numbers.standard_normal((SAMPLES, FACTORS)) @ mixing
    features = np.maximum(factors + 3 * numbers.standard_normal((SAMPLES, DIMENSION)), 0)
    return np.cov(features, rowvar=False)
