"""Which numbers of the feature maps make a capsule."""

from __future__ import annotations

import torch

from common.capsules.primary import PrimaryCapsules
from common.capsules.squash import squash


def test_a_capsule_is_the_channels_of_one_map_at_one_place() -> None:
    torch.manual_seed(0)
    layer = PrimaryCapsules(3, maps=2, size=4, kernel=3, stride=2, padding=1)
    features = torch.randn(5, 3, 6, 8)
    capsules = layer(features)
    assert capsules.shape == (5, 2 * 3 * 4, 4)
    values = layer.convolution(features)  # (5, 8, 3, 4)
    assert torch.allclose(capsules[1, 12 + 2 * 4 + 3], squash(values[1, 4:8, 2, 3]))
    assert torch.allclose(capsules[2, 5], squash(values[2, 0:4, 1, 1]))


def test_the_published_layer_makes_1152_capsules_of_8() -> None:
    assert PrimaryCapsules(256)(torch.zeros(1, 256, 20, 20)).shape == (1, 1152, 8)
