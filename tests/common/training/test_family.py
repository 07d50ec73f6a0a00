"""The trainer family beyond pix2pix: a latent critic game, two generators with two discriminators, ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.data.sampler import InfiniteBatchSampler
from common.errors import UserError
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import ConditionalPatchDiscriminator
from common.training.cycle import CycleStep, ImagePool, PooledDiscriminatorStep
from common.training.ema import WeightAverage
from common.training.precision import Precision
from common.training.steps import Context, DiscriminatorStep, GeneratorStep, Step
from common.training.trainer import MultiStepTrainer, WithLatent
from tests.common.training.toy import ToyGenerator, ToyPairs, toy_trainer

Build = Callable[[], MultiStepTrainer]
LATENT = 5


def trainer_of(
    steps: list[Step],
    networks: dict[str, nn.Module],
    shared: Mapping[str, str] | None = None,
    **settings: Any,
) -> MultiStepTrainer:
    """Four batches of two an epoch; an optimiser for each first letter, or where ``shared`` leads it."""
    groups: dict[str, list[nn.Parameter]] = {}
    for name, network in networks.items():
        groups.setdefault((shared or {}).get(name[0], name[0]), []).extend(network.parameters())
    return MultiStepTrainer(
        max_epochs=4,
        train_data_loader=DataLoader(ToyPairs(), batch_sampler=InfiniteBatchSampler(8, 2)),
        networks=networks,
        optimizers={name: torch.optim.Adam(group, 1e-2) for name, group in groups.items()},
        steps=steps,
        precision=Precision("cpu"),
        **settings,
    )


class LatentGenerator(nn.Sequential):
    """(B, LATENT) -> (B, 1, 16, 16) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(LATENT, 256), nn.BatchNorm1d(256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16)))


def critic(condition_channels: int) -> ConditionalPatchDiscriminator:
    return ConditionalPatchDiscriminator(
        condition_channels=condition_channels, channels=4, num_layers_d=1, norm="INSTANCE"
    )


def wgan_gp() -> MultiStepTrainer:
    torch.manual_seed(0)
    networks = {"G": LatentGenerator(), "D": critic(0)}
    loss, inputs = adversarial_loss("wasserstein"), ("latent",)
    steps: list[Step] = [
        DiscriminatorStep(loss, inputs, condition=None, penalty=10.0, repeat=3),
        GeneratorStep(loss, inputs=inputs, condition=None),
    ]
    average = {"G": WeightAverage(networks["G"], 2), "D": WeightAverage(networks["D"], 3)}
    return trainer_of(steps, networks, prepare_batch=WithLatent(LATENT), average=average)


def cycle_gan() -> MultiStepTrainer:
    torch.manual_seed(0)
    networks = {"G": ToyGenerator(), "F": ToyGenerator(), "D_X": critic(0), "D_Y": critic(0)}
    loss = adversarial_loss("least_squares")
    steps: list[Step] = [
        PooledDiscriminatorStep(loss, ImagePool(3, name="X"), ("image",), "label", "F", "D_X", "D_X"),
        PooledDiscriminatorStep(loss, ImagePool(3, name="Y"), ("label",), "image", "G", "D_Y", "D_Y"),
        CycleStep(loss),
    ]
    average = {"G": WeightAverage(networks["G"], 13)}
    return trainer_of(steps, networks, {"F": "G"}, average=average)


def two_to_one() -> MultiStepTrainer:
    return toy_trainer(max_epochs=4, g_repeat=2)


FAMILY = {"wgan_gp": wgan_gp, "cycle_gan": cycle_gan, "two_to_one": two_to_one}


def weights(trainer: MultiStepTrainer) -> dict[str, Tensor]:
    return {f"{n}.{k}": v.clone() for n, net in trainer.networks.items() for k, v in net.state_dict().items()}


def logged(trainer: MultiStepTrainer) -> list[dict[str, float]]:
    """The list that fills with every iteration's logs."""
    logs: list[dict[str, float]] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: logs.append(dict(trainer.state.logs)))
    return logs


def trained_to(build: Build, iteration: int, path: Any) -> None:
    """Trains with one more handler that saves the state after ``iteration`` and stops."""
    trainer = build()

    def save(engine: MultiStepTrainer) -> None:
        torch.save(engine.training_state(), path)
        engine.terminate()

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=iteration), save)
    trainer.run()


@pytest.mark.parametrize("name", FAMILY)
def test_resumed_run_equals_the_straight_one(name: str, tmp_path: Any) -> None:
    whole = FAMILY[name]()
    straight = logged(whole)
    whole.run()
    trained_to(FAMILY[name], 3, tmp_path / "state.pt")
    resumed = FAMILY[name]()
    torch.rand(7)  # what happened before must not matter
    resumed.load_training_state(torch.load(tmp_path / "state.pt", weights_only=True))
    later = logged(resumed)
    resumed.run()
    assert len(straight) == whole.total_iterations > 3
    assert later == straight[3:]
    first, second = weights(whole), weights(resumed)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_critic_takes_three_steps_an_iteration_on_latents_of_their_own() -> None:
    trainer = wgan_gp()
    seen: list[Tensor] = []
    losses = trainer.steps[0].losses
    trainer.steps[0].losses = lambda c: seen.append(c.batch["latent"]) or losses(c)
    trainer.run()
    assert trainer.total_iterations == 4
    assert trainer.optimizers["D"].state_dict()["state"][0]["step"] == 12
    assert trainer.optimizers["G"].state_dict()["state"][0]["step"] == 4
    assert all(latent.shape == (2, LATENT) for latent in seen)
    assert len({float(latent[0, 0]) for latent in seen}) == 12
    assert set(trainer.state.logs) >= {"D_adversarial", "D_penalty", "G_adversarial", "loss"}
    assert trainer.state.output["pred"].shape == (2, 1, 16, 16)


def test_the_critic_learns_slopes_near_one() -> None:
    torch.manual_seed(0)
    trainer = wgan_gp()
    penalties = logged(trainer)
    trainer.run()
    assert penalties[-1]["D_penalty"] < penalties[0]["D_penalty"] < 1


def test_averages_of_two_networks_keep_their_own_rates() -> None:
    trainer = wgan_gp()
    trainer.state.max_epochs = 1
    start = weights(trainer)
    trainer.run()
    end = weights(trainer)
    # Two images an iteration for G, six for D: one half-life of 2, two of 3.
    for name, key, rate in (("G", "0.weight", 0.5), ("D", "nets.0.initial_conv.conv.weight", 0.75)):
        moved = end[f"{name}.{key}"] - start[f"{name}.{key}"]
        averaged = end[f"{name}_ema.{key}"] - start[f"{name}.{key}"]
        torch.testing.assert_close(averaged, rate * moved, rtol=1e-3, atol=1e-6)


def test_cycle_gan_moves_all_four_networks_with_two_optimisers() -> None:
    trainer = cycle_gan()
    before = weights(trainer)
    logs = logged(trainer)
    trainer.run()
    after = weights(trainer)
    first = {"G": "net.0.weight", "F": "net.0.weight"}
    first |= {name: "nets.0.initial_conv.conv.weight" for name in ("D_X", "D_Y")}
    assert all(
        not torch.equal(before[f"{name}.{key}"], after[f"{name}.{key}"]) for name, key in first.items()
    )
    assert set(trainer.optimizers) == {"G", "D"}
    assert logs[-1]["G_cycle_x"] < logs[0]["G_cycle_x"]


def test_a_networks_outputs_are_kept_apart_by_input() -> None:
    trainer = cycle_gan()
    context = Context(trainer.networks)
    context.use(next(iter(DataLoader(ToyPairs(), batch_sampler=InfiniteBatchSampler(8, 2)))))
    of_image, of_label = (context.output("G", (name,)) for name in ("image", "label"))
    assert not torch.equal(of_image, of_label)
    assert context.output("G", ("image",)) is of_image
    context.forget(["G"])
    assert context.output("G", ("image",)) is not of_image


def test_two_steps_of_one_name_are_refused() -> None:
    trainer = toy_trainer()
    twice = [trainer.steps[0], trainer.steps[0]]
    with pytest.raises(UserError, match="same name"):
        trainer_of(twice, {"G": ToyGenerator(), "D": critic(1)})
