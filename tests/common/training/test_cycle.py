"""The losses of CycleGAN on networks whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import DiscriminatorOutput
from common.training.cycle import CycleStep, ImagePool, PooledDiscriminatorStep
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

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        return DiscriminatorOutput([image.mean((1, 2, 3), keepdim=True)], [[]])


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


def test_a_pooled_discriminators_penalty_is_at_real_images_and_keeps_its_turn() -> None:
    """The judge's slope is 1/16 at each of 16 pixels: half its square, every other time twice."""

    def made() -> PooledDiscriminatorStep:
        given = {"penalty": 10.0, "penalty_interval": 2}
        return PooledDiscriminatorStep(
            LEAST_SQUARES, ImagePool(1), ("label",), "image", "G", "D", "D", **given
        )

    one = Context({"G": Shift(0.25), "D": Judge()})
    one.use({"label": torch.zeros(2, 1, 4, 4), "image": torch.ones(2, 1, 4, 4)})
    step = made()
    losses = step.losses(one)
    assert float(losses["D_penalty"].detach()) == pytest.approx(2 / 32)
    assert float(step.total(losses).detach()) == pytest.approx(0.5 * 0.25**2 + 10 * 2 / 32)
    again = made()
    again.load_state_dict(step.state_dict())
    assert again.pool.seen == 2 and float(again.losses(one)["D_penalty"].detach()) == 0


def numbered(first: int, count: int = 1) -> Tensor:
    """Images (count, 1, 1, 1) that are their own number."""
    return torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1)


def shown(pool: ImagePool, count: int, first: int = 0) -> list[int]:
    return [int(pool.query(numbered(number))) for number in range(first, first + count)]


def test_new_images_are_shown_until_the_pool_is_full() -> None:
    pool = ImagePool(4)
    assert torch.equal(pool.query(numbered(0, 4)), numbered(0, 4))
    assert len(pool.images) == 4


def test_half_of_the_images_are_old_then_and_an_old_one_is_shown_once() -> None:
    pool = ImagePool(10)
    images = shown(pool, 2010)
    old = [image for number, image in enumerate(images) if image != number]
    assert 900 < len(old) < 1100
    late = images[10:]  # what the full pool gives away has been in it since before
    assert all(image <= number for number, image in enumerate(images))
    assert max(late.count(image) for image in late if image >= 10) == 1
    assert sorted(late[:2000] + [int(image) for image in pool.images]) == list(range(2010))


def test_without_a_pool_images_pass() -> None:
    assert shown(ImagePool(0), 5) == [0, 1, 2, 3, 4]


def test_no_gradients_reach_the_generator() -> None:
    assert not ImagePool(2).query(numbered(0).requires_grad_()).requires_grad


def test_two_pools_draw_for_themselves_and_a_seed_repeats() -> None:
    first, again = (shown(ImagePool(3, 1, "X"), 50) for _ in range(2))
    assert first == again != shown(ImagePool(3, 1, "Y"), 50)
    assert first != shown(ImagePool(3, 2, "X"), 50)


def test_it_goes_on_from_its_state() -> None:
    straight, stopped, resumed = ImagePool(3), ImagePool(3), ImagePool(3)
    whole = shown(straight, 40)
    assert shown(stopped, 17) == whole[:17]
    resumed.load_state_dict(stopped.state_dict())
    assert shown(resumed, 23, 17) == whole[17:]


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(UserError, match="pool_size -1"):
        ImagePool(-1)
