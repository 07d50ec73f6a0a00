from __future__ import annotations

import pytest
import torch
from torch import nn

from common.networks.initialisation import initialise


def test_initial_weights_are_those_of_dcgan() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 64, 4), nn.BatchNorm2d(64), nn.ConvTranspose2d(64, 16, 4), nn.BatchNorm2d(16)]
    initialise(nn.Sequential(*layers))
    weights = torch.cat([layer.weight.flatten() for layer in layers[::2]])
    scales = torch.cat([layer.weight for layer in layers[1::2]])
    assert float(weights.mean().detach()) == pytest.approx(0, abs=1e-3)
    assert float(weights.std().detach()) == pytest.approx(0.02, rel=0.02)
    assert float(scales.mean().detach()) == pytest.approx(1, abs=0.01)
    assert float(scales.std().detach()) == pytest.approx(0.02, rel=0.2)
    assert all(not layer.bias.any() for layer in layers)
