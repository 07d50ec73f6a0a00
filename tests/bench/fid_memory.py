"""The memory of FID's statistics over 50 000 x 2 048 features."""

from __future__ import annotations

import torch

from common.metrics.fid import StreamingMoments
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes

FEATURES, DIMENSION, BATCH = 50_000, 2_048, 500
LIMIT = 200.0  # MB over the features of one batch
REPEATS = 5


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
