from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from torch import nn

from common.errors import UserError
from common.training.ema import WeightAverage


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
