from __future__ import annotations

import pytest
import torch
from torch import nn

from bundles.dcgan_covid.networks import DcganGenerator
from common.networks.misfit import misfit


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
    assert misfit(generator(), generator(**saved).state_dict()) == said


def test_other_networks_name_the_first_tensor() -> None:
    assert (
        misfit(nn.Linear(3, 2), nn.Linear(4, 2).state_dict()) == "its weight is (2, 4), the network's (2, 3)"
    )
    assert misfit(nn.Linear(3, 2), {"other": torch.zeros(2)}) == ""


def test_what_is_no_state_is_not_explained() -> None:
    assert misfit(generator(), {"weight": 3}) == misfit(generator(), [1]) == ""
    assert misfit(generator(), nn.Linear(3, 2).state_dict()) == ""
