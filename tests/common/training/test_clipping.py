"""Weights after a step of a clipped optimiser."""

from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.training.clipping import clip_weights


def stepped(bound: float | None) -> torch.Tensor:
    """Weights 0.005 and -1 after a step of 0.2 upwards."""
    weight = torch.nn.Parameter(torch.tensor([0.005, -1.0]))
    optimizer = clip_weights(torch.optim.SGD([weight], lr=0.2), bound)
    (-weight.sum()).backward()
    optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(
    ("bound", "expected"), [(None, [0.205, -0.8]), (0.5, [0.205, -0.5]), (0.01, [0.01, -0.01])]
)
def test_weights_stay_within_the_bound(bound: float | None, expected: list[float]) -> None:
    assert torch.allclose(stepped(bound), torch.tensor(expected))


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_a_bound_of_nothing_is_refused(bound: float) -> None:
    with pytest.raises(UserError, match="weight_clip"):
        stepped(bound)
