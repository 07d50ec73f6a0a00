"""The penalty of critics whose gradient is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.losses.gradient_penalty import gradient_norm, gradient_penalty, zero_centred_penalty


def linear(*weights: float) -> nn.Linear:
    critic = nn.Linear(len(weights), 1)
    critic.weight.data = torch.tensor([weights])
    return critic


def test_a_linear_critic_is_penalised_by_the_length_of_its_weights() -> None:
    real, fake = torch.randn(4, 2), torch.randn(4, 2)
    assert gradient_penalty(linear(3.0, 4.0), real, fake).item() == pytest.approx((5 - 1) ** 2)
    assert gradient_penalty(linear(0.6, 0.8), real, fake).item() == pytest.approx(0, abs=1e-6)
    assert gradient_penalty(linear(3.0, 4.0), real, fake, centre=0).item() == pytest.approx(25)


def test_it_is_taken_at_the_mixture_of_real_and_fake() -> None:
    real, fake = torch.full((2, 1, 1, 1), 4.0), torch.zeros(2, 1, 1, 1)
    mixing = torch.tensor([0.25, 1.0])  # x = 1 and 4; the gradient of x^2 is 2 and 8
    penalty = gradient_penalty(torch.square, real, fake, mixing)
    assert penalty.item() == pytest.approx(((2 - 1) ** 2 + (8 - 1) ** 2) / 2)


def test_its_gradient_reaches_the_critic_and_not_the_images() -> None:
    critic, fake = linear(3.0, 4.0), torch.randn(4, 2, requires_grad=True)
    gradient_penalty(critic, torch.randn(4, 2), fake).backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w| = 8 (0.6, 0.8)
    torch.testing.assert_close(critic.weight.grad, torch.tensor([[4.8, 6.4]]))
    assert fake.grad is None


def test_a_conditional_critic_is_differentiated_by_its_image_alone() -> None:
    critic, condition = linear(3.0, 4.0), torch.randn(5, 1)
    penalty = gradient_penalty(
        lambda x: critic(torch.cat([condition, x], 1)), torch.randn(5, 1), torch.randn(5, 1)
    )
    assert penalty.item() == pytest.approx((4 - 1) ** 2)


def test_a_flat_critic_has_a_finite_gradient() -> None:
    critic = linear(0.0, 0.0)
    gradient_penalty(critic, torch.randn(4, 2), torch.randn(4, 2)).backward()
    assert torch.isfinite(critic.weight.grad).all()


def test_norms_are_per_sample() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0]], requires_grad=True)
    torch.testing.assert_close(gradient_norm(torch.square, x), torch.tensor([2.0, 10.0]))


def test_a_zero_centred_penalty_is_half_the_mean_square_slope() -> None:
    images = torch.tensor([[1.0, 0.0], [3.0, 4.0]])  # the gradient of x^2 is 2 x: squares 4 and 100
    assert zero_centred_penalty(torch.square, images).item() == pytest.approx((4 + 100) / 2 / 2)
    critic = linear(3.0, 4.0)
    fake = torch.randn(4, 2, requires_grad=True)
    zero_centred_penalty(critic, fake).backward()  # d/dw |w|^2 / 2 = w
    torch.testing.assert_close(critic.weight.grad, torch.tensor([[3.0, 4.0]]))
    assert fake.grad is None


def test_a_zero_centred_penalty_is_in_float32() -> None:
    images = torch.tensor([[1.0, 0.0]]).half()  # 300 squared is beyond float16's largest value
    penalty = zero_centred_penalty(lambda x: 150 * x.square(), images)
    assert penalty.dtype is torch.float32 and penalty.item() == pytest.approx(45_000)
