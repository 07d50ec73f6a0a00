"""The squash's values and its behaviour at zero."""

from __future__ import annotations

import pytest
import torch

from common.capsules.squash import lengths, squash


@pytest.mark.parametrize(("length", "expected"), [(0.5, 0.2), (1.0, 0.5), (2.0, 0.8), (100.0, 0.9999)])
def test_a_length_of_s_becomes_s_squared_over_one_plus_s_squared(length: float, expected: float) -> None:
    direction = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    result = squash(length * direction)
    assert torch.allclose(result, expected * direction, atol=1e-5)


def test_each_vector_of_a_tensor_is_squashed_by_itself() -> None:
    vectors = torch.randn(2, 3, 4, dtype=torch.float64)
    alone = torch.stack([torch.stack([squash(vector) for vector in row]) for row in vectors])
    assert torch.equal(squash(vectors), alone)


@pytest.mark.parametrize("function", [squash, lengths])
def test_value_and_gradients_of_two_orders_are_finite_at_zero(function) -> None:  # type: ignore[no-untyped-def]
    zero = torch.zeros(2, 5, requires_grad=True)
    value = function(zero)
    (first,) = torch.autograd.grad(value.sum(), zero, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), zero)
    assert value.abs().max() < 1e-5
    assert first.isfinite().all() and second.isfinite().all()


def test_gradients_agree_with_differences() -> None:
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squash, vectors)
    assert torch.autograd.gradgradcheck(squash, vectors)


def test_lengths() -> None:
    assert torch.allclose(lengths(torch.tensor([[3.0, 4.0], [0.0, -2.0]])), torch.tensor([5.0, 2.0]))
