from __future__ import annotations

import pytest
import torch

from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.fid import fid
from common.random import generator
from common.trust.extrapolation import fid_infinity


def features(count: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(generator(seed, "features").normal(offset, 1, (count, 8))).float()


def resamples(count: int) -> Resamples:
    return Resamples(resample_counts(None, count, 20, generator(0, "test")))


def test_the_bias_of_few_images_goes() -> None:
    """Two samples of one distribution: 0 with infinitely many images, more with few."""
    found = [fid_infinity(features(200, seed), features(200, seed + 50), resamples(400)) for seed in range(5)]
    plain = [fid(features(200, seed), features(200, seed + 50)) for seed in range(5)]
    for each, value in zip(found, plain, strict=True):
        assert each is not None and each.value.n == 200
        assert each.means[0] == pytest.approx(value) and each.means == sorted(each.means)
        assert each.numbers == [200, 100, pytest.approx(200 / 3), 50]
        assert each.value.low <= each.value.mean <= each.value.high
    assert sum(each.value.mean for each in found if each) < 0.3 * sum(plain)


def test_a_true_distance_stays() -> None:
    found = fid_infinity(features(300, 0), features(200, 1, 0.5), resamples(500))
    assert found is not None and found.value.mean == pytest.approx(8 * 0.25, rel=0.2)
    assert found == fid_infinity(features(300, 0), features(200, 1, 0.5), resamples(500))


def test_none_for_very_few() -> None:
    assert fid_infinity(features(7, 0), features(100, 1), resamples(107)) is None
