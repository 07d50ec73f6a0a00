"""The margin loss of classes and of the adversarial game, by hand."""

from __future__ import annotations

import pytest
import torch

from common.capsules.margin import margin_loss
from common.losses.adversarial import adversarial_loss


def test_classes() -> None:
    lengths = torch.tensor([[0.95, 0.05, 0.3], [0.5, 0.6, 0.1]])
    # sample 1: 0.5 * 0.2^2 for the third class; sample 2: 0.3^2 for the second and 0.5 * 0.4^2 for the first
    assert float(margin_loss(lengths, torch.tensor([0, 1]))) == pytest.approx((0.02 + 0.09 + 0.08) / 2)


def test_nothing_is_paid_beyond_the_margins() -> None:
    assert float(margin_loss(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))) == pytest.approx(0, abs=1e-12)


def test_the_game() -> None:
    game = adversarial_loss("margin")
    real, fake = torch.tensor([0.7, 1.0]), torch.tensor([0.5, 0.0])
    assert float(game.discriminator_loss(real, fake)) == pytest.approx(0.04 / 2 + 0.08 / 2)
    assert float(game.generator_loss(fake)) == pytest.approx((0.16 + 0.81) / 2)
    assert game.threshold == 0.5
