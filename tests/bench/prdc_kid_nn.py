"""All pairs of 20 000 x 512 features: KID, precision to coverage and nearest images, against plain numpy."""

from __future__ import annotations

import functools

import numpy as np
import torch

from common.metrics.kid import kid
from common.metrics.nearest_neighbors import find_nearest
from common.metrics.prdc import NEIGHBOURS, prdc
from common.rng import make_rng
from tests.bench.harness import Result, Work, benchmark, extra_megabytes, seconds

FEATURES, DIMENSION, FACTORS = 20_000, 512, 16
ROWS = 1_000
"""Of the plain matrices at once, in float64: whole ones of this size take 3.2 GB each."""
GOAL, MEMORY_GOAL = 1.0, 5.0


@benchmark("prdc_kid_nn")
def prdc_kid_nn_seconds() -> Result:
    """As a report measures them, in float64: no slower than plain numpy, which computes the same sums.

    Measured once, as the plain side takes minutes; ours before and after it, of which the slower counts.
    """
    torch.set_num_threads(2)
    real, fake = features(FEATURES)
    first, second = real.astype(np.float64), fake.astype(np.float64)
    measures(*(torch.from_numpy(part[:1000]) for part in (real, fake)))  # the libraries' own start
    ours = functools.partial(measures, torch.from_numpy(real), torch.from_numpy(fake))
    before, slow, after = seconds(ours), seconds(lambda: plain_measures(first, second)), seconds(ours)
    fast = max(before, after)
    return Result("prdc_kid_nn", slow / fast, GOAL, fast, slow, "s", 1)


@benchmark("prdc_kid_nn_memory")
def prdc_kid_nn_memory() -> Result:
    """The peak above the features against one matrix of distances in float32, the least that numpy needs."""
    matrix = FEATURES**2 * 4 / 1e6
    used = extra_megabytes(walk)
    return Result("prdc_kid_nn_memory", matrix / used, MEMORY_GOAL, used, matrix, "MB", 1)


def walk() -> Work:
    """A first, small call has loaded the libraries' own buffers."""
    real, fake = map(torch.from_numpy, features(FEATURES))
    measures(real[:1000], fake[:1000])
    return functools.partial(measures, real, fake)


def measures(real: torch.Tensor, fake: torch.Tensor) -> None:
    """Everything that a trust report asks of two sets of features."""
    kid(real, fake)
    prdc(real, fake)
    find_nearest(fake, real)


def features(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated ones as an extractor gives them: few factors, rectified; (N, D) float32 each."""
    numbers = make_rng(0, "bench", "features")
    mixing = numbers.standard_normal((FACTORS, DIMENSION))

    def drawn(spread: float, level: float) -> np.ndarray:
        factors = numbers.standard_normal((count, FACTORS)) * spread
        noise = numbers.standard_normal((count, DIMENSION)) * 0.3
        return np.maximum(factors @ mixing + noise + level, 0).astype(np.float32)

    return drawn(1.0, 2.0), drawn(0.9, 2.05)


def plain_measures(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """The same, each by itself, a block of rows at a time."""
    real_radii, fake_radii = plain_radii(real), plain_radii(fake)
    counts = {"precision": np.zeros(len(fake)), "density": np.zeros(len(fake))}
    recall, coverage = [], []
    for start in range(0, len(real), ROWS):
        apart = distances(real[start : start + ROWS], fake)
        inside = apart < real_radii[start : start + ROWS, None]
        counts["precision"] += inside.any(0)
        counts["density"] += inside.sum(0)
        coverage.append(inside.any(1))
        recall.append((apart < fake_radii).any(1))
    return {
        "kid": plain_kid(real, fake),
        "precision": float((counts["precision"] > 0).mean()),
        "recall": float(np.concatenate(recall).mean()),
        "density": float(counts["density"].mean() / NEIGHBOURS),
        "coverage": float(np.concatenate(coverage).mean()),
        "nearest": float(plain_nearest(fake, real).mean()),
    }


def plain_radii(values: np.ndarray) -> np.ndarray:
    """The distance to the k-th nearest other vector; the nearest of all is the vector itself."""
    blocks = []
    for start in range(0, len(values), ROWS):
        apart = distances(values[start : start + ROWS], values)
        blocks.append(np.partition(apart, NEIGHBOURS, axis=1)[:, NEIGHBOURS])
    return np.concatenate(blocks)


def plain_kid(real: np.ndarray, fake: np.ndarray) -> float:
    """From kernel sums over blocks."""

    def kernel_sum(first: np.ndarray, second: np.ndarray) -> float:
        starts = range(0, len(first), ROWS)
        blocks = ((first[start : start + ROWS] @ second.T / DIMENSION + 1) ** 3 for start in starts)
        return float(sum(block.sum() for block in blocks))

    def within(values: np.ndarray) -> float:
        diagonal = ((values**2).sum(1) / DIMENSION + 1) ** 3
        return (kernel_sum(values, values) - diagonal.sum()) / (len(values) * (len(values) - 1))

    return within(real) + within(fake) - 2 * kernel_sum(real, fake) / (len(real) * len(fake))


def plain_nearest(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The distance of each query to its nearest reference."""
    starts = range(0, len(queries), ROWS)
    return np.concatenate([distances(queries[start : start + ROWS], references).min(1) for start in starts])


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of all pairs: (N, M)."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0))
