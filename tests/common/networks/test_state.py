from __future__ import annotations

import pytest
import torch
from torch import nn

from bundles.dcgan_covid.networks import DcganGenerator
from common.networks.state import describe_mismatch, evaluating, init_weights


def test_initial_weights_are_those_of_dcgan() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 64, 4), nn.BatchNorm2d(64), nn.ConvTranspose2d(64, 16, 4), nn.BatchNorm2d(16)]
    init_weights(nn.Sequential(*layers))
    weights = torch.cat([layer.weight.flatten() for layer in layers[::2]])
    scales = torch.cat([layer.weight for layer in layers[1::2]])
    assert float(weights.mean().detach()) == pytest.approx(0, abs=1e-3)
    assert float(weights.std().detach()) == pytest.approx(0.02, rel=0.02)
    assert float(scales.mean().detach()) == pytest.approx(1, abs=0.01)
    assert float(scales.std().detach()) == pytest.approx(0.02, rel=0.2)
    assert all(not layer.bias.any() for layer in layers)


def generator(image_size: int = 32, latent: int = 10, classes: int = 0) -> DcganGenerator:
    return DcganGenerator(image_size, latent, width=2, classes=classes)


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({}, ""),
        ({"latent": 7}, "its latent size is 7, the network's 10"),
        ({"image_size": 64}, "its image size is 64, the network's 32"),
        ({"classes": 3}, "its number of classes is 3, the network's 0"),
        (
            {"latent": 7, "classes": 2},
            "its latent size is 7, the network's 10, its number of classes is 2, the network's 0",
        ),
    ],
)
def test_a_generator_says_which_sizes_differ(saved: dict[str, int], said: str) -> None:
    assert describe_mismatch(generator(), generator(**saved).state_dict()) == said


def test_other_networks_name_the_first_tensor() -> None:
    assert (
        describe_mismatch(nn.Linear(3, 2), nn.Linear(4, 2).state_dict())
        == "its weight is (2, 4), the network's (2, 3)"
    )
    assert describe_mismatch(nn.Linear(3, 2), {"other": torch.zeros(2)}) == ""


def test_what_is_no_state_is_not_explained() -> None:
    assert describe_mismatch(generator(), {"weight": 3}) == describe_mismatch(generator(), [1]) == ""
    assert describe_mismatch(generator(), nn.Linear(3, 2).state_dict()) == ""


def test_the_mode_of_every_submodule_is_restored() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()))
    network[1][0].eval()  # frozen on purpose
    before = [module.training for module in network.modules()]
    with pytest.raises(KeyError), evaluating(network, nn.Dropout()):
        assert not any(module.training for module in network.modules())
        raise KeyError
    assert [module.training for module in network.modules()] == before == [True, True, True, False, True]
