from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from common.training.contexts import evaluating, preserved_rng, restore_rng, rng_state


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


def draw_rng():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)


def test_state_survives_a_safe_load(tmp_path):
    draw_rng()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw_rng()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw_rng() == expected
