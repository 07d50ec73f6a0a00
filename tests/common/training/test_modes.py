from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from common.training.modes import evaluating, preserved_rng


def test_the_mode_of_every_submodule_is_restored() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()))
    network[1][0].eval()  # frozen on purpose
    before = [module.training for module in network.modules()]
    with pytest.raises(KeyError), evaluating(network, nn.Dropout()):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == before == [True, True, True, False, True]


def draw() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_random_states_are_restored() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draw()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with pytest.raises(KeyError), preserved_rng(5):
        draw()
        raise KeyError
    assert draw() == expected


def test_the_seed_makes_the_block_repeat() -> None:
    with preserved_rng(5):
        first = draw()
    with preserved_rng(5):
        assert draw() == first
    with preserved_rng(6):
        assert draw() != first
