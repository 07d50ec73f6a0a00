"""The inception score where it is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.inception_score import class_probabilities, inception_score, score_with_interval


def certain(classes: list[int], count: int = 5) -> torch.Tensor:
    """One-hot rows."""
    return torch.nn.functional.one_hot(torch.tensor(classes), count).float()


def test_the_number_of_classes_that_are_certain_and_equally_common() -> None:
    classes = ([2] * 50, [0, 1, 2, 3, 4] * 10, [1, 4] * 20)
    assert [inception_score(certain(each)) for each in classes] == pytest.approx([1, 5, 2])
    assert inception_score(torch.full((30, 5), 0.2)) == pytest.approx(1)


def test_a_value_by_hand() -> None:
    found = inception_score(torch.tensor([[0.9, 0.1], [0.2, 0.8]]))
    first = 0.9 * math.log(0.9 / 0.55) + 0.1 * math.log(0.1 / 0.45)
    second = 0.2 * math.log(0.2 / 0.55) + 0.8 * math.log(0.8 / 0.45)
    assert found == pytest.approx(math.exp((first + second) / 2))


def test_weights_count_rows_as_often() -> None:
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert inception_score(rows, torch.tensor([3.0, 1.0])) == pytest.approx(
        inception_score(rows[[0, 0, 0, 1]])
    )


def test_the_interval_holds_the_score_and_does_not_go_below_one() -> None:
    rows = torch.softmax(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), 1)
    resamples = Resamples(resample_counts(None, 40, 50, np.random.default_rng(0)))
    value = score_with_interval(rows, resamples)
    assert value.mean == pytest.approx(inception_score(rows)) and value.n == 40
    assert 1 <= value.low < value.mean < value.high


def test_logits_and_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="softmax"):
        inception_score(torch.tensor([[2.0, -1.0]]))
    with pytest.raises(UserError, match="no images"):
        inception_score(torch.zeros(0, 3))


def test_probabilities_come_in_batches() -> None:
    class Gray:
        name = "gray"

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            share = images.mean((1, 2, 3))[:, None]
            return torch.cat([share, 1 - share], dim=1)

    images = torch.linspace(0, 1, 7)[:, None, None, None].expand(7, 1, 4, 4)
    assert torch.allclose(class_probabilities(Gray(), images, 3)[:, 0], torch.linspace(0, 1, 7))
