"""Adversarial losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from monai.losses import PatchAdversarialLoss

from common.errors import UserError
from common.losses.adversarial import KINDS, adversarial_loss

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
