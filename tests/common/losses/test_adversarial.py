"""Adversarial losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import PatchAdversarialLoss
from torch import nn

from common.errors import UserError
from common.losses.adversarial import (
    KINDS,
    adversarial_loss,
    gradient_norm,
    gradient_penalty,
    zero_centred_penalty,
)

REAL = torch.tensor([[2.0], [0.0]])
FAKE = torch.tensor([[-3.0], [0.5]])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


EXPECTED = {  # discriminator, generator
    "bce": (
        (softplus(-2) + softplus(0)) / 2 + (softplus(-3) + softplus(0.5)) / 2,
        (softplus(3) + softplus(-0.5)) / 2,
    ),
    "least_squares": ((1 + 1) / 2 + (9 + 0.25) / 2, (16 + 0.25) / 2),
    "hinge": ((0 + 1) / 2 + (0 + 1.5) / 2, (3 - 0.5) / 2),
    "wasserstein": (-1 - 1.25, 1.25),
    "relativistic": ((softplus(-5) + softplus(0.5)) / 2, (softplus(5) + softplus(-0.5)) / 2),
    "margin": ((0 + 0.81) / 2 + (0 + 0.08) / 2, (15.21 + 0.16) / 2),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_known_values(kind: str) -> None:
    loss = adversarial_loss(kind)
    discriminator, generator = EXPECTED[kind]
    assert loss.discriminator_loss(REAL, FAKE).item() == pytest.approx(discriminator)
    assert loss.generator_loss(FAKE, REAL).item() == pytest.approx(generator)


def test_scales_count_alike_whatever_their_size() -> None:
    scales = [torch.full((1, 1, 4, 4), 3.0), torch.full((1, 1, 1, 1), -1.0)]
    assert adversarial_loss("least_squares").generator_loss(scales).item() == pytest.approx((4 + 4) / 2)
    assert adversarial_loss("wasserstein").generator_loss(scales).item() == pytest.approx(-1.0)


def test_least_squares_is_monais_without_its_activation() -> None:
    theirs = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
    ours = adversarial_loss("least_squares").generator_loss(FAKE)
    assert torch.equal(ours, theirs(FAKE, target_is_real=True, for_discriminator=False))


@pytest.mark.parametrize("kind", list(KINDS))
def test_low_precision_logits_give_a_finite_float32_loss_and_a_gradient(kind: str) -> None:
    logits = torch.tensor([[200.0, -200.0]], dtype=torch.bfloat16, requires_grad=True)
    loss = adversarial_loss(kind).discriminator_loss(logits, logits)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_generator_is_pushed_towards_higher_logits(kind: str) -> None:
    logits = torch.tensor([[-0.5]], requires_grad=True)
    adversarial_loss(kind).generator_loss(logits, torch.tensor([[0.25]])).backward()
    assert logits.grad is not None
    assert logits.grad.item() < 0


def test_pairs_are_told_apart_by_their_difference_alone() -> None:
    loss = adversarial_loss("relativistic")
    for both in (loss.discriminator_loss, lambda real, fake: loss.generator_loss(fake, real)):
        torch.testing.assert_close(both(REAL + 7, FAKE + 7), both(REAL, FAKE))
    scales = [REAL, torch.tensor([[1.0]])], [FAKE, torch.tensor([[3.0]])]
    expected = ((softplus(-5) + softplus(0.5)) / 2 + softplus(2)) / 2
    assert loss.discriminator_loss(*scales).item() == pytest.approx(expected)
    assert not loss.needs_bound and adversarial_loss("wasserstein").needs_bound


def test_pairs_need_as_many_real_images() -> None:
    loss = adversarial_loss("relativistic")
    with pytest.raises(UserError, match="compares with real images"):
        loss.generator_loss(FAKE)
    with pytest.raises(UserError, match="there are 1 and 2"):
        loss.discriminator_loss(REAL[:1], FAKE)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match="bce, least_squares, hinge, wasserstein"):
        adversarial_loss("lsgan")


def test_the_threshold_lies_between_the_targets() -> None:
    assert {kind: adversarial_loss(kind).threshold for kind in ("bce", "least_squares", "hinge")} == {
        "bce": 0.0,
        "least_squares": 0.5,
        "hinge": 0.0,
    }


def linear(*weights: float) -> nn.Linear:
    critic = nn.Linear(len(weights), 1)
    critic.weight.data = torch.tensor([weights])
    return critic


def test_a_linear_critic_is_penalised_by_the_length_of_its_weights() -> None:
    real, fake = torch.randn(4, 2), torch.randn(4, 2)
    assert gradient_penalty(linear(3.0, 4.0), real, fake).item() == pytest.approx((5 - 1) ** 2)
    assert gradient_penalty(linear(0.6, 0.8), real, fake).item() == pytest.approx(0, abs=1e-6)


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
