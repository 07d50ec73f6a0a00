from __future__ import annotations

import torch
from ignite.engine import Engine
from torch import nn

from common.training.ema import WeightAverage


def test_weights_and_running_statistics_follow_the_formula() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.75)
    values = [3.0, -1.0, 5.0]

    def step(engine: Engine, value: float) -> None:
        with torch.no_grad():
            network.weight.fill_(value)
            network.running_mean.fill_(10 * value)

    engine = Engine(step)
    average.attach(engine, "G")
    engine.run(values)
    weight, mean = 1.0, 0.0  # a norm's first ones
    for value in values:
        weight = 0.75 * weight + 0.25 * value
        mean = 0.75 * mean + 0.25 * 10 * value
    assert float(average.network.weight) == weight
    assert float(average.network.running_mean) == mean
    assert float(network.running_mean) == 50
    assert not average.network.training and network.training


def test_without_decay_the_network_itself_is_what_samples() -> None:
    network = nn.Linear(1, 1)
    average = WeightAverage(network)
    average.attach(Engine(lambda engine, batch: None), "G")
    assert average.network is network
