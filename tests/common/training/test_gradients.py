from __future__ import annotations

import pytest
import torch
from torch import nn

from common.training.gradients import average_gradients, frozen


def test_frozen_modules_pass_gradients_on_without_taking_any() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    with frozen([second]):
        second(first(torch.ones(1, 2))).sum().backward()
    assert first.weight.grad is not None and second.weight.grad is None


def test_what_was_frozen_before_stays_so_also_after_an_error() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen([module]):
        assert not module.weight.requires_grad
        raise KeyError
    assert module.weight.requires_grad and not module.bias.requires_grad


def test_one_process_averages_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter, nn.Parameter(torch.ones(1))])
    assert parameter.grad.tolist() == [1.0, 2.0]
