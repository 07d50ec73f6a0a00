"""The two sums of routing against their formulas, and their derivatives of two orders."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.capsules.contraction import agreement, weighted_sum


def tensors() -> dict[str, Tensor]:
    """Random float64 ones by their names in the formulas."""
    torch.manual_seed(0)
    b, j, i, k, d = 2, 3, 4, 2, 3
    shapes = {"c": (b, j, i), "u": (b, k, i), "w": (j, d, k, i), "v": (b, j, d)}
    return {
        name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()
    }


SUMS = {weighted_sum: ("cuw", "bji,bki,jdki->bjd"), agreement: ("uwv", "bki,jdki,bjd->bji")}


@pytest.mark.parametrize("function", SUMS)
def test_the_sum_is_that_of_its_formula(function: Callable[..., Tensor]) -> None:
    names, formula = SUMS[function]
    given = [tensors()[name] for name in names]
    assert torch.allclose(function(*given), torch.einsum(formula, *given))


@pytest.mark.parametrize("function", SUMS)
def test_derivatives_of_both_orders_agree_with_differences(function: Callable[..., Tensor]) -> None:
    given = [tensors()[name] for name in SUMS[function][0]]
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_nothing_is_computed_for_what_needs_no_gradient() -> None:
    c, u, w = (tensors()[name] for name in "cuw")
    weighted_sum(c.detach(), u, w.detach()).sum().backward()
    assert u.grad is not None and c.grad is None and w.grad is None
