"""The losses of CycleGAN on networks whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import Critique
from common.training.cycle import CycleStep, PooledDiscriminatorStep
from common.training.image_pool import ImagePool
from common.training.steps import Context

LEAST_SQUARES = adversarial_loss("least_squares")


class Shift(nn.Module):
    """Adds a number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor(by))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.by


class Judge(nn.Module):
    """Takes the mean of an image for its logit."""

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Critique:
        return Critique([image.mean((1, 2, 3), keepdim=True)], [[]])


def context(there: float = 0.25, back: float = -0.5) -> Context:
    made = Context({"G": Shift(there), "F": Shift(back), "D_X": Judge(), "D_Y": Judge()})
    made.use({"label": torch.zeros(2, 1, 4, 4), "image": torch.ones(2, 1, 4, 4), "mask": torch.ones(1)})
    return made


def numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def test_each_loss_looks_at_its_side() -> None:
    step = CycleStep(LEAST_SQUARES, terms={"kept": lambda new, old, mask: (new - old).mean() * mask.mean()})
    losses = step.losses(context())
    assert numbers(losses) == {
        "G_adversarial_y": 0.75**2,  # G(x) = 0.25, wanted 1
        "G_adversarial_x": 0.5**2,  # F(y) = 0.5
        "G_cycle_x": 0.25,
        "G_cycle_y": 0.25,
        "G_identity_y": 0.25,
        "G_identity_x": 0.5,
        "G_kept": 0.25,
    }
    assert float(step.total(losses).detach()) == 0.5625 + 0.25 + 10 * 0.5 + 5 * 0.75 + 0.25


def test_without_identity_the_generators_run_only_where_they_lead() -> None:
    losses = CycleStep(LEAST_SQUARES, cycle=2.0, identity=0.0).losses(context())
    assert set(losses) == {"G_adversarial_y", "G_adversarial_x", "G_cycle_x", "G_cycle_y"}


def test_a_weight_of_no_term_is_refused() -> None:
    step = CycleStep(LEAST_SQUARES, weights={"G_lost": 1.0})
    with pytest.raises(UserError, match="G_lost"):
        step.total(step.losses(context()))


def test_the_discriminator_is_shown_the_pools_images_at_half_weight() -> None:
    pool = ImagePool(1)
    step = PooledDiscriminatorStep(LEAST_SQUARES, pool, ("label",), "image", "G", "D_Y", "D_Y")
    losses = step.losses(context())
    assert numbers(losses) == {"D_Y_adversarial": 0.25**2} and len(pool.images) == 1
    assert float(step.total(losses).detach()) == 0.25**2 / 2
    again = PooledDiscriminatorStep(LEAST_SQUARES, ImagePool(1), ("label",), "image", "G", "D_Y", "D_Y")
    again.load_state_dict(step.state_dict())
    assert again.pool.seen == 2 and len(again.pool.images) == 1
