"""Known answers, none of them symmetric."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_roc_auc

from common.metrics.classification import area_under_roc, balanced_accuracy, macro_area, recalls


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
