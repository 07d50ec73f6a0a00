"""What the steps make of their networks' answers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.losses.adversarial import adversarial_loss
from common.networks.diffusion import DiffusionGenerator
from common.networks.discriminators import (
    AugmentedDiscriminator,
    ConditionalPatchDiscriminator,
    DiscriminatorOutput,
)
from common.training.steps import (
    Context,
    DiffusionStep,
    DiscriminatorStep,
    GeneratorStep,
    SupervisedStep,
    min_snr_weights,
    spread_timesteps,
)
from tests.common.training.toy import toy_trainer

WEIGHTS = torch.tensor([3.0, 4.0])


class Scales(nn.Module):
    """As many scales as there are factors; each one's logit is the factor times 3 a + 4 b."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        score = (image.flatten(1) * WEIGHTS).sum(1, keepdim=True)
        return DiscriminatorOutput([factor * score for factor in self.factors], [[] for _ in self.factors])


@pytest.mark.parametrize(("factors", "slope"), [((1.0,), 5.0), ((1.0, 1.0), 5.0), ((1.0, 0.2, 0.6), 3.0)])
def test_the_penalty_weighs_scales_as_the_loss_does(factors: tuple[float, ...], slope: float) -> None:
    """Both take the mean over scales."""
    context = Context({"G": nn.Identity(), "D": Scales(*factors)})
    image = torch.randn(2, 1, 1, 2)
    context.use({"image": image, "label": torch.randn(2, 1, 1, 2)})
    step = DiscriminatorStep(adversarial_loss("wasserstein"), penalty=10.0)
    losses = step.losses(context)
    assert float(losses["D_penalty"]) == pytest.approx((slope - 1) ** 2, rel=1e-5)
    heights = [(sample.flatten(1) * WEIGHTS).sum(1).mean() for sample in context.batch.values()]
    expected = slope / 5 * (heights[1] - heights[0])
    torch.testing.assert_close(losses["D_adversarial"], expected)


class Square(nn.Module):
    """The logit of an image of two values is a^2 + b: its slope at the place is (2 a, 1)."""

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        values = image.flatten(1)
        return DiscriminatorOutput([values[:, :1].square() + values[:, 1:]], [[]])


@pytest.mark.parametrize(
    ("place", "expected"),
    [("real", (16 + 1) / 2), ("fake", (36 + 1) / 2), ("both", (16 + 1) / 2 + (36 + 1) / 2)],
)
def test_the_penalty_is_taken_at_the_images_named(place: str, expected: float) -> None:
    context = Context({"G": nn.Identity(), "D": Square()})
    context.use(
        {"image": torch.tensor([[[[2.0, 9.0]]]]), "label": torch.tensor([[[[-3.0, 8.0]]]])}  # slopes 4 and -6
    )
    step = DiscriminatorStep(adversarial_loss("relativistic"), penalty=0.5, penalty_at=place)
    losses = step.losses(context)
    assert float(losses["D_penalty"]) == pytest.approx(expected)
    assert float(step.total(losses)) == pytest.approx(float(losses["D_adversarial"]) + 0.5 * expected)


def test_a_lazy_penalty_weighs_as_much_more_and_remembers_its_place() -> None:
    context = Context({"G": nn.Identity(), "D": Square()})
    context.use({"image": torch.tensor([[[[2.0, 9.0]]]]), "label": torch.tensor([[[[-3.0, 8.0]]]])})

    def made() -> DiscriminatorStep:
        loss = adversarial_loss("relativistic")
        return DiscriminatorStep(loss, penalty=1.0, penalty_at="real", penalty_interval=3)

    first, second = made(), made()
    values = [float(first.losses(context)["D_penalty"]) for _ in range(4)]
    assert values == pytest.approx([3 * 8.5, 0, 0, 3 * 8.5])
    second.load_state_dict(first.state_dict())
    assert [float(second.losses(context)["D_penalty"]) for _ in range(3)] == pytest.approx([0, 0, 3 * 8.5])
    second.load_state_dict({})  # of a run from before there was an interval
    assert float(second.losses(context)["D_penalty"]) == pytest.approx(3 * 8.5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"penalty_at": "fakes"}, "between, real, fake, both"),
        ({"penalty_interval": 0}, "penalty_interval is 0"),
    ],
)
def test_no_such_place_or_interval(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        DiscriminatorStep(adversarial_loss("bce"), penalty=1.0, **settings)


def test_where_the_loss_pairs_the_generator_is_judged_beside_the_real_images() -> None:
    image, fake = torch.tensor([[[[2.0, 1.0]]]]), torch.tensor([[[[1.0, 3.0]]]], requires_grad=True)
    context = Context({"G": nn.Identity(), "D": Square()})
    context.use({"image": image, "label": fake})
    losses = GeneratorStep(adversarial_loss("relativistic")).losses(context)
    torch.testing.assert_close(losses["G_adversarial"], torch.tensor(1.0).exp().add(1).log())
    losses["G_adversarial"].backward()
    share = torch.tensor(1.0).sigmoid()  # of real (5) less generated (4)
    torch.testing.assert_close(fake.grad, -share * torch.tensor([[[[2.0, 1.0]]]]))


def test_pairs_in_the_right_order_are_counted() -> None:
    context = Context({"G": nn.Identity(), "D": Square()})
    context.use(
        {"image": torch.tensor([[[[2.0, 1.0]]], [[[0.0, 1.0]]]]), "label": torch.full((2, 1, 1, 2), 1.0)}
    )
    DiscriminatorStep(adversarial_loss("relativistic")).losses(context)
    assert {name: float(value) for name, value in context.measures.items()} == {"D_accuracy_pairs": 0.5}


class Condition(nn.Module):
    """A conditional critic of dense layers, which take one type of numbers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.noise = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, image: Tensor, condition: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput(
            [(self.image(image.flatten(1)) * self.noise(condition)).sum(1, keepdim=True)], [[]]
        )


def test_a_condition_in_half_precision_meets_the_penalty_in_float32() -> None:
    torch.manual_seed(0)
    context = Context({"G": nn.Identity(), "D": Condition()})
    condition = torch.randn(3, 2)
    image, fake = torch.randn(3, 1, 2, 2), torch.randn(3, 1, 2, 2)
    step = DiscriminatorStep(adversarial_loss("bce"), condition="noise", penalty=1.0)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(1)
        context.use(
            {"image": image, "label": fake.to(dtype), "noise": condition.to(torch.bfloat16).to(dtype)}
        )
        with torch.autocast("cpu", torch.bfloat16):
            found.append(step.losses(context)["D_penalty"])
        assert found[-1].dtype is torch.float32
    torch.testing.assert_close(found[0], found[1], rtol=1e-2, atol=0)  # the images were rounded


def test_features_of_images_that_were_moved_apart_are_not_compared() -> None:
    judge = AugmentedDiscriminator(ConditionalPatchDiscriminator(channels=4, num_layers_d=1))
    optimizer = torch.optim.SGD(judge.parameters())
    GeneratorStep(adversarial_loss("bce")).check({"D": judge}, optimizer)
    GeneratorStep(adversarial_loss("bce"), feature_matching=1.0).check({"D": judge.discriminator}, optimizer)
    with pytest.raises(UserError, match=r"feature_matching .* discriminator_augment"):
        GeneratorStep(adversarial_loss("bce"), feature_matching=1.0).check({"D": judge}, optimizer)


def test_a_critic_says_nothing_about_accuracy() -> None:
    for kind, told in (("wasserstein", False), ("hinge", True)):
        trainer = toy_trainer(max_epochs=1, kind=kind, penalty=10.0)
        trainer.run()
        assert any("accuracy" in name for name in trainer.state.logs) is told, kind


def test_the_trainer_refuses_a_critic_without_a_bound() -> None:
    with pytest.raises(UserError, match="adversarial wasserstein needs"):
        toy_trainer(kind="wasserstein")


def grads(trainer: Any) -> list[bool]:
    """The list that fills with whether each of the generator's passes recorded a graph."""
    seen: list[bool] = []
    trainer.networks["G"].register_forward_hook(lambda *passed: seen.append(passed[2].requires_grad))
    return seen


@pytest.mark.parametrize(
    ("repeats", "graphs"),
    [
        ({}, [True]),  # one batch, one pass for both
        ({"d_repeat": 3}, [False, False, True]),
        ({"g_repeat": 2}, [False, True, True]),  # D sees the second of two batches, before G sees the first
        ({"d_repeat": 2, "g_repeat": 2}, [False, False, True, True]),
    ],
)
def test_only_what_the_generator_learns_from_has_a_graph(repeats: dict[str, int], graphs: list[bool]) -> None:
    trainer = toy_trainer(max_epochs=1, **repeats)
    seen = grads(trainer)
    trainer.run()
    assert seen == graphs * trainer.total_iterations


def test_a_batch_of_one_image_and_batch_norm_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for size, warned in ((2, False), (1, True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            toy_trainer(batch_size=size)
        assert ("batch_size 1 with batch norm" in caplog.text) is warned


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


def tiny_diffusion(condition_channels: int = 1) -> DiffusionGenerator:
    pytest.importorskip("einops", reason='MONAI\'s attention needs it: pip install ".[diffusion]"')
    torch.manual_seed(0)
    return DiffusionGenerator(16, condition_channels, [32, 32], [False, False], patch=2, sampling_steps=2)


def test_timesteps_are_evenly_apart_and_all_occur() -> None:
    torch.manual_seed(1)
    device = torch.device("cpu")
    times = spread_timesteps(4, 1000, device).sort().values
    gaps = torch.diff(torch.cat([times, times[:1] + 1000]))
    assert gaps.sum() == 1000 and (gaps - 250).abs().max() <= 1
    many = torch.cat([spread_timesteps(8, 10, device) for _ in range(200)])
    assert many.bincount(minlength=10).float().div(1600).sub(0.1).abs().max() < 0.02


def test_weights_bound_the_signal_to_noise_ratio() -> None:
    kept = torch.tensor([0.9, 0.5])  # ratios of 9 and 1
    for prediction, weights in (("epsilon", [5 / 9, 1]), ("v_prediction", [0.5, 0.5]), ("sample", [5, 1])):
        assert min_snr_weights(kept, prediction, 5.0).tolist() == pytest.approx(weights, rel=1e-5)


def test_a_fresh_network_predicts_nothing_and_learns() -> None:
    network = tiny_diffusion()
    image = torch.zeros(8, 1, 16, 16)
    image[:4] = 0.8
    context = Context({"G": network})
    context.use({"image": image, "label": (image > 0).float()})
    step, optimizer = DiffusionStep(), torch.optim.Adam(network.unet.parameters(), 3e-3)
    network.train()
    first = last = 0.0
    for number in range(30):
        loss = step.total(step.losses(context))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (float(loss.detach()) if number == 0 else first), float(loss.detach())
    assert 0.5 < first < 1.2  # the mean square of the velocity: the network's output is 0
    assert last < 0.5 * first
    assert context.last_outputs["G"].shape == (8, 1, 16, 16)


def test_other_networks_are_refused() -> None:
    step = DiffusionStep()
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(UserError, match="Linear is no diffusion model"):
        step.check({"G": nn.Linear(1, 1)}, optimizer)
    with pytest.raises(UserError, match="condition_channels 0 does not fit"):
        step.check({"G": tiny_diffusion(0)}, optimizer)
    step.check({"G": tiny_diffusion(1)}, optimizer)
