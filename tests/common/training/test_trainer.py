from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.data.loaders import InfiniteBatchSampler
from common.errors import UserError
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import ConditionalPatchDiscriminator
from common.networks.state import frozen
from common.training.cycle import CycleStep, ImagePool, PooledDiscriminatorStep
from common.training.optimisation import WeightAverage
from common.training.precision import Precision
from common.training.steps import Context, DiscriminatorStep, GeneratorStep, Step
from common.training.trainer import (
    BatchGroups,
    MultiStepTrainer,
    WithLatent,
    average_gradients,
    prepare_batch,
)
from tests.common.training.toy import ToyGenerator, ToyPairs, toy_trainer


def weights(trainer: MultiStepTrainer) -> dict[str, Tensor]:
    return {f"{n}.{k}": v.clone() for n, net in trainer.networks.items() for k, v in net.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


class Recorder:
    def __init__(self):
        self.logs, self.samples, self.completed = [], [], 0

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.record)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.count)

    def record(self, engine):
        self.logs.append((engine.state.iteration, dict(engine.state.logs)))
        self.samples.append(engine.state.batch["sample"].tolist())

    def count(self, engine):
        self.completed += 1


def test_logs_every_named_loss_and_fires_model_completed():
    recorder = Recorder()
    toy_trainer(max_epochs=1, handlers=[recorder]).run()
    names = {"D_adversarial", "D_loss", "G_adversarial", "G_l1", "G_loss", "loss"}
    measures = {"D_accuracy_real", "D_accuracy_fake"}
    assert len(recorder.logs) == recorder.completed == 4
    for _, logs in recorder.logs:
        assert set(logs) == names | measures
        assert logs["G_loss"] == pytest.approx(logs["G_adversarial"] + 10 * logs["G_l1"], rel=1e-5)
        assert logs["loss"] == pytest.approx(logs["G_loss"] + logs["D_loss"], rel=1e-5)


def test_an_epoch_visits_every_sample_once_and_the_next_in_another_order():
    recorder = Recorder()
    toy_trainer(max_epochs=2, handlers=[recorder]).run()
    visits = [index for batch in recorder.samples for index in batch]
    assert sorted(visits[:8]) == sorted(visits[8:]) == list(range(8))
    assert visits[:8] != visits[8:]


def test_one_generator_forward_serves_both_steps():
    trainer = toy_trainer(max_epochs=1)
    trainer.run()
    assert trainer.networks["G"].calls == 4


def test_each_discriminator_step_sees_a_fresh_batch():
    seen = []
    trainer = toy_trainer(max_epochs=2, d_repeat=3)
    losses = trainer.steps[0].losses
    trainer.steps[0].losses = lambda context: seen.append(context.batch["sample"].tolist()) or losses(context)
    trainer.run()
    assert trainer.state.epoch_length == 1  # four batches an epoch, three an iteration
    assert len(seen) == 6
    assert sorted(sample for batch in seen[:4] for sample in batch) == list(range(8))


def test_two_generator_steps_an_iteration():
    trainer = toy_trainer(max_epochs=1, g_repeat=2, ema=0)
    trainer.run()
    assert trainer.state.epoch_length == 2
    assert trainer.optimizers["G"].state_dict()["state"][0]["step"] == 4
    assert trainer.optimizers["D"].state_dict()["state"][0]["step"] == 2


def test_generator_step_leaves_the_discriminator_without_gradients():
    trainer = toy_trainer()
    context = Context(trainer.networks)
    context.use(trainer.prepare(next(iter(trainer.data_loader))[0], trainer.precision))
    step = trainer.steps[1]
    with frozen([trainer.networks["D"]]):
        step.total(step.losses(context)).backward()
    assert all(p.grad is None for p in trainer.networks["D"].parameters())
    assert all(p.grad is not None for p in trainer.networks["G"].parameters())
    assert all(p.requires_grad for p in trainer.networks["D"].parameters())


@pytest.mark.parametrize("kind", ["bce", "least_squares", "hinge", "wasserstein"])
def test_every_loss_changes_both_networks(kind):
    trainer = toy_trainer(max_epochs=1, kind=kind, penalty=10.0 if kind == "wasserstein" else 0.0)
    before = weights(trainer)
    trainer.run()
    after = weights(trainer)
    for name in ("G.net.0.weight", "D.nets.0.initial_conv.conv.weight"):
        assert not torch.equal(before[name], after[name])
    assert ("D_penalty" in trainer.state.logs) == (kind == "wasserstein")


def test_what_counts_as_real_is_an_entry_of_the_batch():
    """The generator may be held against something else than the plain image."""
    networks = {"G": nn.Conv2d(1, 1, 1), "D": ConditionalPatchDiscriminator(channels=4, num_layers_d=1)}
    seen = {}

    def far(prediction, real, condition):
        seen["real"] = real
        return prediction.mean()

    context = Context(networks)
    context.use({name: torch.rand(2, 1, 16, 16) for name in ("image", "label", "pair")})
    step = GeneratorStep(adversarial_loss("bce"), terms={"far": far}, real="pair", feature_matching=1.0)
    losses = step.losses(context)
    assert seen["real"] is context.batch["pair"] and set(losses) == {"G_adversarial", "G_far", "G_features"}


def test_average_follows_slowly():
    trainer = toy_trainer(max_epochs=1, ema=13)
    start = weights(trainer)["G.net.0.weight"]
    trainer.run()
    end = weights(trainer)
    moved, averaged = (end[f"{n}.net.0.weight"] - start for n in ("G", "G_ema"))
    assert 0 < averaged.norm() < moved.norm()


def test_same_seed_same_bytes():
    results = []
    for _ in range(2):
        trainer = toy_trainer(max_epochs=2)
        trainer.run()
        results.append(weights(trainer))
    assert_same(*results)


@pytest.mark.parametrize(
    ("stop", "workers", "amp"), [(1, 0, False), (4, 0, False), (6, 2, False), (7, 0, "bf16")]
)
def test_resumed_run_equals_the_straight_one(stop, workers, amp):
    straight = Recorder()
    whole = toy_trainer(num_workers=workers, amp=amp, handlers=[straight])
    whole.run()

    states, first = {}, toy_trainer(num_workers=workers, amp=amp)
    event = Events.EPOCH_COMPLETED if stop % 4 == 0 else Events.ITERATION_COMPLETED
    first.add_event_handler(
        event, lambda e: states.setdefault(e.state.iteration, copy_of(e.training_state()))
    )
    first.run()

    resumed = Recorder()
    second = toy_trainer(num_workers=workers, amp=amp, handlers=[resumed])
    second.load_training_state(states[stop])
    torch.manual_seed(99)  # what the process did before must not matter
    second.load_training_state(states[stop])
    second.run()
    assert_same(weights(whole), weights(second))
    assert resumed.logs == straight.logs[stop:]


def copy_of(value):
    if isinstance(value, dict):
        return {k: copy_of(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copy_of(v) for v in value]
    return value.clone() if torch.is_tensor(value) else value


def test_finished_run_is_not_started_again():
    trainer = toy_trainer(max_epochs=1)
    trainer.run()
    before = weights(trainer)
    again = toy_trainer(max_epochs=1)
    again.load_training_state(trainer.training_state())
    again.run()
    assert_same(before, weights(again))


def test_postprocessing_sees_decollated_items():
    seen = []
    trainer = toy_trainer(max_epochs=1, postprocessing=lambda item: seen.append(item["pred"].shape) or item)
    trainer.run()
    assert seen == [torch.Size([1, 16, 16])] * 8


def test_unknown_names_are_refused():
    trainer = toy_trainer()
    with pytest.raises(UserError, match="no network or optimiser called"):
        type(trainer)(
            1,
            trainer.data_loader.loader,
            {"A": trainer.networks["G"]},
            trainer.optimizers,
            trainer.steps,
            trainer.precision,
        )
    step = GeneratorStep(trainer.steps[1].adversarial, weights={"G_l2": 1.0})
    with pytest.raises(UserError, match="G_l2"):
        step.total({"G_adversarial": torch.tensor(1.0)})


def test_resuming_with_another_batch_size_is_refused():
    trainer = toy_trainer()
    state = trainer.training_state()
    state["setting"]["batch_size"] = 4
    with pytest.raises(UserError, match="batch_size was 4, is 2"):
        trainer.load_training_state(state)


def test_a_resumed_run_takes_the_optimisers_options_of_now() -> None:
    """G has a schedule that halves its rate every epoch, D has none."""
    straight = toy_trainer(max_epochs=2)
    straight.run()
    state = straight.training_state()
    assert state["optimizers"]["G"]["param_groups"][0]["lr"] == 0.0025
    again = toy_trainer(max_epochs=4)
    again.load_training_state(state)
    assert [again.optimizers[name].param_groups[0]["lr"] for name in "GD"] == [0.0025, 0.01]
    other = toy_trainer(max_epochs=4)
    for optimizer in other.optimizers.values():
        optimizer.param_groups[0].update({"weight_decay": 0.1, "betas": (0.5, 0.9), "lr": 0.03})
    other.optimizers["G"].param_groups[0]["initial_lr"] = 0.03
    other.load_training_state(state)
    groups = [other.optimizers[name].param_groups[0] for name in "GD"]
    assert [group["lr"] for group in groups] == pytest.approx([0.0075, 0.03])
    assert all(group["weight_decay"] == 0.1 and group["betas"] == (0.5, 0.9) for group in groups)
    moments = [trainer.optimizers["G"].state_dict()["state"][0]["exp_avg"] for trainer in (straight, other)]
    assert torch.equal(*moments)
    other.run()
    assert other.optimizers["G"].param_groups[0]["lr"] == pytest.approx(0.03 / 16)


def test_tensors_come_in_the_layout_and_the_rest_as_it_is() -> None:
    precision = Precision("cpu", amp="bf16", channels_last=True)
    batch = {"image": torch.rand(2, 3, 4, 4), "sample": torch.arange(2), "name": ["a", "b"]}
    prepared = prepare_batch(batch, precision)
    assert prepared["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared["image"], batch["image"])
    assert prepared["sample"].tolist() == [0, 1] and prepared["name"] == ["a", "b"]


def test_latents_are_normal_fresh_and_go_on_from_the_generators_state() -> None:
    batch, prepare, precision = {"image": torch.rand(2000, 1, 1, 1)}, WithLatent(5), Precision("cpu")
    state = torch.get_rng_state()
    first, second = prepare(batch, precision)["latent"], prepare(batch, precision)["latent"]
    assert first.shape == (2000, 5) and not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.05 and abs(float(first.std()) - 1) < 0.05
    torch.set_rng_state(state)
    assert torch.equal(prepare(batch, precision)["latent"], first)


def test_groups_take_every_batch_once_and_no_random_numbers() -> None:
    stream = InfiniteBatchSampler(8, 2)
    groups = BatchGroups(DataLoader(ToyPairs(), batch_sampler=stream), 3)
    state = torch.get_rng_state()
    taken = [batch["sample"].tolist() for group in islice(groups, 2) for batch in group]
    assert torch.equal(torch.get_rng_state(), state)
    assert taken == [[draw.index for draw in stream.batch(position)] for position in range(6)]


def test_frozen_modules_pass_gradients_on_without_taking_any() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    with frozen([second]):
        second(first(torch.ones(1, 2))).sum().backward()
    assert first.weight.grad is not None and second.weight.grad is None


def test_what_was_frozen_before_stays_so_also_after_an_error() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen([module]):
        assert not module.weight.requires_grad
        raise KeyError
    assert module.weight.requires_grad and not module.bias.requires_grad


def test_one_process_averages_nothing() -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter, nn.Parameter(torch.ones(1))])
    assert parameter.grad.tolist() == [1.0, 2.0]


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
def test_a_resumed_run_of_any_family_equals_the_straight_one(name: str, tmp_path: Any) -> None:
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
    assert_same(weights(whole), weights(resumed))


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
