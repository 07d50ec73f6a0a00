"""Differences between trainings, with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.comparison import TrainingComparison, sentence


def mean(outcome: np.ndarray, counts: np.ndarray) -> float:
    return float(outcome @ counts / counts.sum())


def made(first: list[list[float]], second: list[list[float]]) -> TrainingComparison:
    length = len(first[0])
    counts = resample_counts([str(k) for k in range(length)], length, 500, np.random.default_rng(0))
    outcomes = {"real": [np.array(row) for row in first], "both": [np.array(row) for row in second]}
    return TrainingComparison(outcomes, Resamples(counts))


def test_values_are_means_over_seeds() -> None:
    comparison = made([[1.0, 0, 0, 0], [1, 1, 0, 0]], [[1.0, 1, 1, 0], [1, 1, 1, 1]])
    assert comparison.value("real", mean).mean == pytest.approx(3 / 8)
    assert comparison.by_seed("both", mean) == [0.75, 1.0]
    difference = comparison.difference("both", "real", mean)
    assert difference.mean == pytest.approx(0.5) and difference.low < 0.5 < difference.high


def test_what_both_share_takes_no_part_in_the_difference() -> None:
    """Slices differ a lot, but each by the same in both regimes: the paired difference is certain."""
    random = np.random.default_rng(1).random(20)
    comparison = made([random.tolist()], [(random + 0.1).tolist()])
    difference = comparison.difference("both", "real", mean)
    assert (difference.low, difference.high) == (pytest.approx(0.1), pytest.approx(0.1))
    value = comparison.value("real", mean)
    assert value.high - value.low > 0.1


def test_the_sentence_follows_the_numbers() -> None:
    found = {
        "synthetic": Value(-0.2, -0.3, -0.1, 9),
        "both": Value(0.1, 0.05, 0.2, 9),
        "oversampled": Value(0.1, -0.05, 0.2, 9),
        "none": Value(math.nan, math.nan, math.nan, 9),
    }
    assert sentence("nodule", "auc", found) == (
        "nodule, against real slices alone: synthetic is worse (auc -0.200 [-0.300, -0.100]); "
        "both is better (auc +0.100 [+0.050, +0.200]); "
        "oversampled is not clearly different (auc +0.100 [-0.050, +0.200]); "
        "none cannot be judged (auc +nan [+nan, +nan])"
    )
    assert sentence("nodule", "auc", {}).endswith("nothing was compared")


def test_seeds_are_drawn_too() -> None:
    """All slices are alike; seeds are not: the interval is theirs, and paired like the slices'."""
    seeds = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    outcomes = {"real": [np.full(4, 0.2), np.full(4, 0.6)], "both": [np.full(4, 0.3), np.full(4, 0.7)]}
    comparison = TrainingComparison(outcomes, Resamples(torch.ones(3, 4, dtype=torch.float64)), seeds)
    value, difference = comparison.value("real", mean), comparison.difference("both", "real", mean)
    assert value.mean == pytest.approx(0.4) and value.low < 0.22 and value.high > 0.58
    assert difference.low == pytest.approx(0.1) and difference.high == pytest.approx(0.1)


def test_a_resample_without_a_class_is_left_out() -> None:
    resamples = Resamples(torch.tensor([[2.0, 0], [0, 2]]))
    comparison = TrainingComparison({"real": [np.array([1.0, 2.0])]}, resamples)
    first_only = comparison.value("real", lambda row, counts: row[0] if counts[0] else math.nan)
    assert (first_only.low, first_only.high) == (1.0, 1.0)
