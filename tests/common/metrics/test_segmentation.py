from __future__ import annotations

import math

import pytest
import torch

from common.metrics.segmentation import MeanDice, dice, mean_dice, overlap_counts


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    """Class 1: 4 pixels against 6, 2 in common. Class 2: 3 against 1, 1 in common. Class 3: nowhere."""
    first = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0], [2, 2, 2, 0, 0, 0, 0, 0]])
    second = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1], [2, 0, 0, 0, 0, 0, 0, 0]])
    return first.view(1, 1, 2, 8).float(), second.view(1, 1, 2, 8).float()


def test_known_answer() -> None:
    counts = overlap_counts(*maps(), classes=3)
    assert counts.tolist() == [[2, 1, 0], [4, 3, 0], [6, 1, 0]]
    values = dice(counts).tolist()
    assert values[:2] == pytest.approx([0.4, 0.5]) and math.isnan(values[2])
    assert mean_dice(counts) == pytest.approx(0.45)


def test_a_map_equals_itself_and_nothing_equals_what_is_missed() -> None:
    first, _ = maps()
    assert mean_dice(overlap_counts(first, first, 3)) == 1.0
    assert mean_dice(overlap_counts(torch.zeros_like(first), first, 3)) == 0.0


def test_the_metric_counts_over_batches_not_over_their_means() -> None:
    first, second = maps()
    metric = MeanDice(3)
    metric.update((first, second))
    metric.update((second, second))
    # class 1: 2 * (2 + 6) / (4 + 6 + 6 + 6); class 2: 2 * (1 + 1) / (3 + 1 + 1 + 1)
    assert metric.compute() == pytest.approx((16 / 22 + 4 / 6) / 2)
    metric.reset()
    assert metric.compute() == 0.0


def test_decollated_items_are_taken_too() -> None:
    first, second = maps()
    metric = MeanDice(2)
    metric.update(([first[0]], [second[0]]))
    assert metric.compute() == pytest.approx(0.45)
