from __future__ import annotations

import random

import numpy as np
import torch

from common.training.rng import restore_rng, rng_state


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)


def test_state_survives_a_safe_load(tmp_path):
    draw()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw()
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected
