"""The supervised step learns a known line, through the trainer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.training.steps import Context
from common.training.supervised import SupervisedStep


def context(**batch: torch.Tensor) -> Context:
    made = Context({"G": nn.Linear(2, 1, bias=False)})
    nn.init.constant_(made.networks["G"].weight, 1.0)
    made.use(batch)
    return made


def test_each_term_is_named_and_weighted() -> None:
    step = SupervisedStep({"mse": nn.MSELoss(), "mae": nn.L1Loss()}, weights={"G_mae": 10.0})
    losses = step.losses(context(image=torch.tensor([[1.0, 2.0]]), label=torch.tensor([[1.0]])))
    assert {name: float(value.detach()) for name, value in losses.items()} == {"G_mse": 4.0, "G_mae": 2.0}
    assert float(step.total(losses).detach()) == 24.0


def test_the_target_may_be_the_input_itself() -> None:
    made = Context({"A": nn.Identity()})
    made.use({"image": torch.ones(1, 2)})
    step = SupervisedStep({"mse": nn.MSELoss()}, target="image", network="A", name="A")
    assert float(step.losses(made)["A_mse"]) == 0.0


def test_a_weight_of_no_term_is_refused() -> None:
    step = SupervisedStep({"mse": nn.MSELoss()}, weights={"G_dice": 1.0})
    with pytest.raises(UserError, match="G_dice"):
        step.total(step.losses(context(image=torch.ones(1, 2), label=torch.ones(1, 1))))
