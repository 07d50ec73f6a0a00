from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.losses.weighting import ConditionWeighted

GENERATED = torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]])
TARGET = torch.zeros(1, 1, 2, 2)
CONDITION = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]]])  # the left column


@pytest.mark.parametrize(
    ("kind", "weight", "expected"),
    [
        ("l1", 1.0, 4 / 4),
        ("l1", 3.0, (3 * (0 + 2) + 1 + 1) / (3 + 3 + 1 + 1)),
        ("l2", 3.0, (3 * (0 + 4) + 1 + 1) / (3 + 3 + 1 + 1)),
        ("l1", 0.0, (1 + 1) / 2),
    ],
)
def test_weighted_mean_by_hand(kind: str, weight: float, expected: float) -> None:
    assert float(ConditionWeighted(kind, weight)(GENERATED, TARGET, CONDITION)) == pytest.approx(expected)


def test_without_a_condition_or_a_lesion_it_is_the_plain_mean() -> None:
    loss = ConditionWeighted("l1", 5.0)
    assert float(loss(GENERATED, TARGET)) == 1
    assert float(loss(GENERATED, TARGET, torch.zeros(1, 1, 2, 2))) == 1


def test_gradients_are_shared_out_by_weight() -> None:
    generated = GENERATED.clone().requires_grad_(True)
    ConditionWeighted("l1", 3.0)(generated, TARGET, CONDITION).backward()
    assert generated.grad is not None
    torch.testing.assert_close(generated.grad[0, 0], torch.tensor([[0.0, 1 / 8], [3 / 8, -1 / 8]]))


def test_half_precision_is_summed_in_float32() -> None:
    ones = torch.ones(1, 1, 64, 64, dtype=torch.bfloat16)
    assert ConditionWeighted("l1", 2.0)(ones, 0 * ones, ones).dtype is torch.float32


def test_an_unknown_distance_is_one_line() -> None:
    with pytest.raises(UserError, match="l3"):
        ConditionWeighted("l3")


def test_means_of_squares_are_compared_where_they_are_asked_for() -> None:
    """Means of 2 x 2: 0.5 and, right of it, -1 against 0; the lesion covers half of the first square."""
    right = torch.tensor([[[[-1.0, -2.0], [0.0, -1.0]]]])
    generated, target = torch.cat([GENERATED, right], -1), torch.zeros(1, 1, 2, 4)
    assert float(ConditionWeighted("l1", side=2)(generated, target)) == pytest.approx((0.5 + 1) / 2)
    condition = torch.cat([CONDITION, torch.zeros(1, 2, 2, 2)], -1)
    expected = (3 * 0.5 * 0.5 + 0.5 * 0.5 + 1) / (3 * 0.5 + 0.5 + 1)
    assert float(ConditionWeighted("l1", 3.0, 2)(generated, target, condition)) == pytest.approx(expected)
