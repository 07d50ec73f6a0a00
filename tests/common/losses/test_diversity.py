from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.losses.diversity import DiversityLoss


class Shifted(nn.Module):
    """Condition plus a learned number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))
        self.seen = 0

    def forward(self, condition: Tensor) -> Tensor:
        self.seen = len(condition)
        return condition + self.by


CONDITION = torch.zeros(3, 1, 4, 4)
TARGET = torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)  # neighbours 1, 2 and 3 apart


@pytest.mark.parametrize(("by", "expected"), [(0.0, 1.0), (0.25, 0.75), (-0.5, 0.5), (1.0, 0.0), (2.0, 0.0)])
def test_by_hand(by: float, expected: float) -> None:
    """Half of the real distance, 2, is asked for."""
    assert DiversityLoss(Shifted(by))(CONDITION, TARGET, CONDITION).item() == pytest.approx(expected)


def test_gradients_drive_the_two_pictures_apart_up_to_the_bound() -> None:
    network, generated = Shifted(0.5), CONDITION.clone().requires_grad_(True)
    DiversityLoss(network, pictures=2)(generated, TARGET, CONDITION).backward()
    assert network.seen == 2 and float(network.by.grad) == pytest.approx(-1)
    assert generated.grad is not None and float(generated.grad[:2].sum()) == pytest.approx(1)
    assert not generated.grad[2].any()
    network = Shifted(1.5)
    DiversityLoss(network)(CONDITION, TARGET, CONDITION).backward()
    assert float(network.by.grad) == 0


def test_grain_is_no_diversity() -> None:
    grain = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(1, 1, 2, 2)
    loss = DiversityLoss(Shifted(0.0), side=2)
    assert loss(CONDITION + grain, TARGET, CONDITION).item() == pytest.approx(1)


def test_one_image_has_no_neighbour() -> None:
    assert DiversityLoss(Shifted(0.0))(CONDITION[:1], TARGET[:1], CONDITION[:1]).item() == 0
    assert DiversityLoss(Shifted(0.0), share=0)(CONDITION, TARGET, CONDITION).item() == 0
