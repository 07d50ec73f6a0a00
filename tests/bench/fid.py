"""FID at 2 048 dimensions: its matrix square root against scipy's, and the memory of its statistics."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import sqrtm

from common.metrics.fid import StreamingMoments, trace_of_root
from common.rng import make_rng
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes, seconds

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


FEATURES, BATCH = 50_000, 500
LIMIT = 200.0  # MB over the features of one batch


@benchmark("fid_accumulator_memory")
def fid_accumulator_memory() -> Result:
    """Streaming against keeping all features, which any metric that takes whole sets needs at the least.

    Both peaks are counted above one batch of features. The goal is the ratio at which ours is `LIMIT`.
    """
    ours, baseline = alternate(lambda: extra_megabytes(streaming), lambda: extra_megabytes(keeping), REPEATS)
    name = "fid_accumulator_memory"
    return Result(name, baseline / ours, baseline / LIMIT, ours, baseline, "MB", REPEATS)


def streaming() -> Work:
    """Mean and covariance of the stream; a first update has loaded the libraries' own buffers."""
    features = torch.rand(BATCH, DIMENSION)
    warm = StreamingMoments(8)
    warm.update(features[:, :8])

    def work() -> None:
        moments = StreamingMoments(DIMENSION)
        for _ in range(FEATURES // BATCH):
            moments.update(features)
        assert moments.covariance.shape == (DIMENSION, DIMENSION)

    return work


def keeping() -> Work:
    """A list of all batches in float32, before anything is computed from them."""
    features = torch.rand(BATCH, DIMENSION)

    def work() -> None:
        kept = [features.clone() for _ in range(FEATURES // BATCH)]
        assert len(kept) * BATCH == FEATURES

    return work
