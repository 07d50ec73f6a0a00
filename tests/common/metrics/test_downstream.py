from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_roc_auc

from common.metrics.bootstrap import Resamples, Value, resample_counts
from common.metrics.downstream import (
    TrainingComparison,
    area_under_roc,
    balanced_accuracy,
    describe_differences,
    holm,
    macro_area,
    recalls,
)


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
        "few": Value(0.3, math.nan, math.nan, 9, 2),
    }
    assert describe_differences("nodule", "auc", found) == (
        "nodule, against real slices alone: synthetic is worse (auc -0.200 [-0.300, -0.100]); "
        "both is better (auc +0.100 [+0.050, +0.200]); "
        "oversampled is not clearly different (auc +0.100 [-0.050, +0.200]); "
        "none cannot be judged (auc +nan); "
        "few cannot be judged with so few patients (auc +0.300)"
    )
    assert describe_differences("nodule", "auc", {}).endswith("nothing was compared")


def test_many_differences_are_judged_together() -> None:
    """Holm's steps by hand: 3 p-values times 3, 2 and 1, none below the one before."""
    values = {name: Value(0.1, 0.01, 0.2, 9, 9, p) for name, p in (("a", 0.02), ("b", 0.011), ("c", 0.021))}
    assert holm(values) == pytest.approx({"b": 0.033, "a": 0.04, "c": 0.04})
    more = {**values, "d": Value(0.1, 0.01, 0.2, 9, 9, 0.03), "e": Value(0.2, math.nan, math.nan, 9, 2)}
    assert holm(more)["b"] == pytest.approx(0.044) and holm(more)["a"] == pytest.approx(0.06)
    assert math.isnan(holm(more)["e"])
    said = describe_differences("nodule", "auc", {"a": more["a"]}, holm(more), "others")
    assert said == "nodule, against others: a is not clearly different (auc +0.100 [+0.010, +0.200])"
    assert "a is better" in describe_differences("nodule", "auc", {"a": more["a"]})


def test_a_difference_has_students_p_value() -> None:
    """Of 4 slices that gain 0, 1, 1 and 2: t = 1 / (0.8165 / 2) = 2.449 with 3 degrees of freedom."""
    difference = made([[0.0, 0, 0, 0]], [[0.0, 1, 1, 2]]).difference("both", "real", mean)
    assert difference.p_zero == pytest.approx(0.0917, abs=1e-4)


def test_seeds_are_drawn_too() -> None:
    """All slices are alike; seeds are not: the interval is theirs, and paired like the slices'."""
    seeds = resample_counts(None, 3, 200, np.random.default_rng(0))
    levels = {"real": (0.2, 0.4, 0.6), "both": (0.3, 0.5, 0.7)}
    outcomes = {regime: [np.full(4, level) for level in each] for regime, each in levels.items()}
    resamples = Resamples.draw(list("abcd"), 4, 200, np.random.default_rng(1))
    comparison = TrainingComparison(outcomes, resamples, seeds)
    value, difference = comparison.value("real", mean), comparison.difference("both", "real", mean)
    reach = 4.302653 * 0.2 / math.sqrt(3)
    assert (value.mean, value.low) == pytest.approx((0.4, 0.4 - reach), rel=1e-5) and value.n == 4
    assert difference.low == pytest.approx(0.1) and difference.high == pytest.approx(0.1)
    alone = TrainingComparison({"real": outcomes["real"][:1]}, resamples, seeds[:, :1]).value("real", mean)
    assert (alone.low, alone.high) == (pytest.approx(0.2), pytest.approx(0.2))


def test_a_class_of_one_patient_alone_has_no_interval() -> None:
    """Without that patient there is no value: nothing is known of how it would vary."""
    resamples = Resamples.draw(list("abcd"), 4, 50, np.random.default_rng(0))
    comparison = TrainingComparison({"real": [np.arange(4.0)]}, resamples)
    value = comparison.value("real", lambda row, counts: row[0] if counts[0] else math.nan)
    assert value.mean == 0 and not value.bounded


def test_the_area_counts_pairs_in_order() -> None:
    """Positives 0.9 and 0.4, negatives 0.5, 0.3 and 0.1: five of six pairs are in order."""
    scores, positive = [0.9, 0.4, 0.5, 0.3, 0.1], [True, True, False, False, False]
    assert area_under_roc(scores, positive) == pytest.approx(5 / 6)
    assert area_under_roc(np.negative(scores), positive) == pytest.approx(1 / 6)
    assert area_under_roc(np.exp(scores), positive) == pytest.approx(5 / 6)  # only the order counts


def test_ties_count_half() -> None:
    assert area_under_roc([0.5, 0.5, 0.2], [True, False, False]) == pytest.approx(0.75)
    assert area_under_roc([1.0] * 5, [True, False, False, False, False]) == 0.5


def test_it_is_monais() -> None:
    numbers = np.random.default_rng(0)
    scores, positive = numbers.random(60).round(1), numbers.random(60) < 0.2
    expected = compute_roc_auc(torch.from_numpy(scores), torch.from_numpy(positive.astype(int)))
    assert area_under_roc(scores, positive) == pytest.approx(float(expected))


def test_counts_repeat_samples() -> None:
    scores, positive = [0.9, 0.4, 0.5], [True, True, False]
    assert area_under_roc(scores, positive, [1, 3, 2]) == pytest.approx(1 / 4)
    assert math.isnan(area_under_roc(scores, positive, [1, 1, 0]))


def test_a_rare_class_counts_as_much_as_a_frequent_one() -> None:
    """Nine negatives right, one positive of two: the plain accuracy is 10 / 11, the balanced one 3 / 4."""
    classes = [0] * 9 + [1] * 2
    predicted = [0] * 9 + [1, 0]
    assert recalls(predicted, classes, 2).tolist() == [1.0, 0.5]
    assert balanced_accuracy(predicted, classes, 2) == 0.75
    assert balanced_accuracy([0] * 11, classes, 2) == 0.5
    assert recalls([1, 0, 0], [0, 0, 1], 2).tolist() == [0.5, 0.0]


def test_a_missing_class_has_no_balance() -> None:
    assert math.isnan(balanced_accuracy([0, 0], [0, 0], 2))
    assert balanced_accuracy([0, 1, 1], [0, 1, 0], 2, counts=[1, 2, 0]) == 1.0


def test_several_classes_are_judged_one_against_the_rest() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3]])
    # class 0 is first everywhere; 1: 0.5 against 0.1 and 0.4; 2: 0.3 against 0.1 and 0.3
    assert macro_area(probabilities, [0, 1, 2]) == pytest.approx((1 + 1 + 0.75) / 3)
    assert macro_area([[0.6, 0.4], [0.7, 0.3]], [1, 0]) == 1.0
