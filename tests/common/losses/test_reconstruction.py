"""Distances by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.losses.reconstruction import (
    ConditionWeighted,
    DiversityLoss,
    feature_matching_loss,
    reconstruction_loss,
)


@pytest.mark.parametrize(("kind", "value"), [("l1", 2.0), ("l2", 5.0), ("smooth_l1", 1.5)])
def test_known_values(kind: str, value: float) -> None:
    made, target = torch.tensor([3.0, -1.0]), torch.zeros(2)
    assert reconstruction_loss(kind)(made, target).item() == pytest.approx(value)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match="l1, l2, smooth_l1"):
        reconstruction_loss("L3")


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


def test_layers_count_alike_whatever_their_size() -> None:
    real = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 1)]
    fake = [torch.ones(1, 2, 4, 4), torch.full((1, 1), -4.0)]
    assert feature_matching_loss(real, fake).item() == pytest.approx((1 + 4) / 2)


def test_scales_count_alike_whatever_their_depth() -> None:
    real = [[torch.zeros(1)], [torch.zeros(1), torch.zeros(1)]]
    fake = [[torch.full((1,), 6.0)], [torch.ones(1), torch.full((1,), 3.0)]]
    assert feature_matching_loss(real, fake).item() == pytest.approx((6 + 2) / 2)


def test_gradients_flow_into_the_generated_features_alone() -> None:
    real = torch.zeros(2, requires_grad=True)
    fake = torch.tensor([1.0, -1.0], requires_grad=True)
    feature_matching_loss([real], [fake]).backward()
    assert real.grad is None
    assert torch.equal(fake.grad, torch.tensor([0.5, -0.5]))


def test_different_numbers_of_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        feature_matching_loss([torch.zeros(1)] * 2, [torch.zeros(1)])
    with pytest.raises(ValueError, match="no features"):
        feature_matching_loss([], [])


class Shifted(nn.Module):
    """Condition plus a learned number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))
        self.seen = 0

    def forward(self, condition: Tensor) -> Tensor:
        self.seen = len(condition)
        return condition + self.by


CONDITION_DIVERSITY = torch.zeros(3, 1, 4, 4)
TARGET_DIVERSITY = (
    torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
)  # neighbours 1, 2 and 3 apart


@pytest.mark.parametrize(("by", "expected"), [(0.0, 1.0), (0.25, 0.75), (-0.5, 0.5), (1.0, 0.0), (2.0, 0.0)])
def test_by_hand(by: float, expected: float) -> None:
    """Half of the real distance, 2, is asked for."""
    assert DiversityLoss(Shifted(by))(
        CONDITION_DIVERSITY, TARGET_DIVERSITY, CONDITION_DIVERSITY
    ).item() == pytest.approx(expected)


def test_gradients_drive_the_two_pictures_apart_up_to_the_bound() -> None:
    network, generated = Shifted(0.5), CONDITION_DIVERSITY.clone().requires_grad_(True)
    DiversityLoss(network, pictures=2)(generated, TARGET_DIVERSITY, CONDITION_DIVERSITY).backward()
    assert network.seen == 2 and float(network.by.grad) == pytest.approx(-1)
    assert generated.grad is not None and float(generated.grad[:2].sum()) == pytest.approx(1)
    assert not generated.grad[2].any()
    network = Shifted(1.5)
    DiversityLoss(network)(CONDITION_DIVERSITY, TARGET_DIVERSITY, CONDITION_DIVERSITY).backward()
    assert float(network.by.grad) == 0


def test_grain_is_no_diversity() -> None:
    grain = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(1, 1, 2, 2)
    loss = DiversityLoss(Shifted(0.0), side=2)
    assert loss(CONDITION_DIVERSITY + grain, TARGET_DIVERSITY, CONDITION_DIVERSITY).item() == pytest.approx(1)


def test_one_image_has_no_neighbour() -> None:
    assert (
        DiversityLoss(Shifted(0.0))(
            CONDITION_DIVERSITY[:1], TARGET_DIVERSITY[:1], CONDITION_DIVERSITY[:1]
        ).item()
        == 0
    )
    assert (
        DiversityLoss(Shifted(0.0), share=0)(
            CONDITION_DIVERSITY, TARGET_DIVERSITY, CONDITION_DIVERSITY
        ).item()
        == 0
    )
