from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from common.metrics.bootstrap import Resamples, percentile_interval, resample_counts


def numbers() -> np.random.Generator:
    return np.random.default_rng(4)


def test_patients_are_drawn_whole() -> None:
    patients = ["b", "a", "b", "c", "b"]
    counts = resample_counts(patients, 5, 200, numbers())
    assert counts.shape == (200, 5)
    assert torch.equal(counts[:, 0], counts[:, 2]) and torch.equal(counts[:, 0], counts[:, 4])
    assert torch.equal(
        counts[:, 0] + counts[:, 1] + counts[:, 3], torch.full((200,), 3.0, dtype=torch.float64)
    )


@pytest.mark.parametrize("patients", [None, ["only"] * 6])
def test_images_are_drawn_where_patients_cannot_be(patients: list[str] | None) -> None:
    counts = resample_counts(patients, 6, 50, numbers())
    assert torch.equal(counts.sum(1), torch.full((50,), 6.0, dtype=torch.float64))
    assert (counts[:, 0] != counts[:, 1]).any()


def test_mean_interval_matches_normal_theory() -> None:
    values = torch.from_numpy(numbers().normal(5, 2, 400))
    counts = resample_counts(None, 400, 1000, numbers())
    low, high = percentile_interval(lambda w: float(w @ values / w.sum()), counts)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert low == pytest.approx(float(values.mean()) - half, abs=0.15 * half)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.15 * half)


def test_alike_slices_of_a_patient_widen_the_interval() -> None:
    values = torch.from_numpy(np.repeat(numbers().normal(0, 1, 20), 10))
    patients = [str(index // 10) for index in range(200)]

    def width(patients: list[str] | None) -> float:
        counts = resample_counts(patients, 200, 500, numbers())
        low, high = percentile_interval(lambda w: float(w @ values / w.sum()), counts)
        return high - low

    assert width(patients) == pytest.approx(math.sqrt(10) * width(None), rel=0.2)


def test_centred_interval_takes_out_the_shift_of_the_resamples() -> None:
    counts = resample_counts(None, 50, 400, numbers())
    values = torch.from_numpy(numbers().normal(0, 1, 50))

    def biased(weights: torch.Tensor) -> float:
        return float(weights @ values / 50) + 3.0

    low, high = centred_interval(biased, counts, 0.0)
    plain_low, plain_high = percentile_interval(biased, counts)
    assert low < 0 < high and plain_low > 2
    assert high - low == pytest.approx(plain_high - plain_low)


def test_resamples_without_a_value_are_left_out() -> None:
    counts = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    low, high = percentile_interval(lambda w: math.nan if w == 0 else float(w), counts)
    assert 1 <= low < high <= 3


def test_a_distance_of_two_sets_drawn_apart() -> None:
    first, second = (torch.from_numpy(numbers().normal(level, 1, 40)) for level in (0.0, 3.0))
    counts = [resample_counts(None, 40, 300, np.random.default_rng(seed)) for seed in (0, 1)]
    both = Resamples(counts[0]).beside(Resamples(counts[1]))

    def apart(weights: torch.Tensor) -> torch.Tensor:
        weights = weights.reshape(-1, 80)
        left, right = weights[:, :40], weights[:, 40:]
        return (right @ second) / right.sum(1) - (left @ first) / left.sum(1)

    many = both.distances(apart)
    assert many.mean == pytest.approx(3.0) and many.n == 80
    half = 1.96 * math.sqrt(float(first.var() + second.var()) / 40)  # the two sets' errors add up
    assert many.high - many.low == pytest.approx(2 * half, rel=0.15)
    single = both.distance(lambda weights: float(apart(weights)))
    assert (single.low, single.high) == pytest.approx((many.low, many.high))
