from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from common.errors import UserError
from common.training.optimisation import WeightAverage, apply_schedule, clip_weights, linear_decay


def rates(epochs: int, start: float, resume_at: int | None = None) -> list[float]:
    """The learning rate in each epoch, through a saved state if wanted."""
    found = []
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    schedule = linear_decay(optimizer, epochs, start)
    for epoch in range(epochs):
        if epoch == resume_at:
            states = optimizer.state_dict(), schedule.state_dict()
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
            schedule = linear_decay(optimizer, epochs, start)
            optimizer.load_state_dict(states[0]), schedule.load_state_dict(states[1])
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step(), schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


def test_the_rate_falls_over_the_second_half_to_nothing() -> None:
    assert rates(8, 0.5) == pytest.approx([0.2] * 5 + [0.15, 0.1, 0.05, 0.0])


def test_a_start_of_1_keeps_the_rate_and_0_falls_from_the_first() -> None:
    assert rates(3, 1.0)[:3] == [0.2] * 3
    assert rates(4, 0.0) == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0])


def test_a_resumed_schedule_goes_on() -> None:
    assert rates(8, 0.5, resume_at=6) == rates(8, 0.5)


def test_rate_after_the_last_epoch() -> None:
    """A run that is given more epochs goes on from there."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.5)
    scheduler = linear_decay(optimizer, 2, start=1.0)
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_longer_schedule_replaces_the_saved_rate() -> None:
    def made(epochs: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
        return optimizer, linear_decay(optimizer, epochs, start=0.5)

    short, schedule = made(4)
    for _ in range(4):
        short.step()
        schedule.step()
    assert short.param_groups[0]["lr"] == 0.0
    long, longer = made(16)
    long.load_state_dict(short.state_dict())
    longer.load_state_dict(schedule.state_dict())
    apply_schedule(longer)
    assert long.param_groups[0]["lr"] == 0.5


def test_weights_and_running_statistics_follow_the_formula() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, half_life=8)
    values = [3.0, -1.0, 5.0]

    def step(engine: Engine, value: float) -> None:
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(10 * value)

    engine = Engine(step)
    average.attach(engine, "G", images=24)  # three half-lives: an eighth is kept
    engine.run(values)
    weight, mean = 1.0, 0.0  # a norm's first ones
    for value in values:
        weight = 0.125 * weight + 0.875 * value
        mean = 0.125 * mean + 0.875 * 10 * value
    assert float(average.network.weight) == weight
    assert float(average.network.running_mean) == mean
    assert float(network.running_mean) == 50
    assert not average.network.training and network.training


@pytest.mark.parametrize("images", [2, 8, 40])
def test_after_the_half_life_half_is_left_whatever_the_batch_size(images: int) -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    average = WeightAverage(network, half_life=80)
    engine = Engine(lambda engine, batch: None)
    average.attach(engine, "G", images)
    nn.init.zeros_(network.weight)
    engine.run(range(80 // images))
    assert float(average.network.weight) == pytest.approx(0.5, rel=1e-5)


def test_a_negative_half_life_is_refused() -> None:
    with pytest.raises(UserError, match="ema_half_life -1: give a number of images"):
        WeightAverage(nn.Linear(1, 1), half_life=-1)


def test_without_a_half_life_the_network_itself_is_what_samples() -> None:
    network = nn.Linear(1, 1)
    average = WeightAverage(network)
    average.attach(Engine(lambda engine, batch: None), "G", images=4)
    assert average.network is network


def test_a_ramp_forgets_the_first_weights_whatever_the_half_life() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = WeightAverage(network, half_life=20, ramp=0.5)
    values = [1.0, 2.0, 3.0, 4.0, 5.0]

    def step(engine: Engine, value: float) -> None:
        with torch.no_grad():
            network.weight.fill_(value)

    engine = Engine(step)
    average.attach(engine, "G", images=10)
    engine.run(values)
    expected = 0.0
    for number, value in enumerate(values, 1):
        kept = 0.5 ** (10 / min(20, 0.5 * 10 * number))  # half-lives 5, 10, 15, 20, 20
        expected = kept * expected + (1 - kept) * value
    assert float(average.network.weight.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_negative_ramp_is_refused() -> None:
    with pytest.raises(UserError, match="ema_ramp -1"):
        WeightAverage(nn.Linear(1, 1), half_life=8, ramp=-1)


def stepped(bound: float | None) -> torch.Tensor:
    """Weights 0.005 and -1 after a step of 0.2 upwards."""
    weight = torch.nn.Parameter(torch.tensor([0.005, -1.0]))
    optimizer = clip_weights(torch.optim.SGD([weight], lr=0.2), bound)
    (-weight.sum()).backward()
    optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(
    ("bound", "expected"), [(None, [0.205, -0.8]), (0.5, [0.205, -0.5]), (0.01, [0.01, -0.01])]
)
def test_weights_stay_within_the_bound(bound: float | None, expected: list[float]) -> None:
    assert torch.allclose(stepped(bound), torch.tensor(expected))


@pytest.mark.parametrize("bound", [0.0, -1.0])
def test_a_bound_of_nothing_is_refused(bound: float) -> None:
    with pytest.raises(UserError, match="weight_clip"):
        stepped(bound)
