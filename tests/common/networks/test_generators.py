"""The ResNet generator has the published layers, and its residual form begins as the identity."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.generators import (
    ResidualBlock,
    ResnetGenerator,
    SpadeGenerator,
    blocks_for,
    start_as_identity,
)
from common.networks.state import init_weights


def tiny(**settings: object) -> nn.Module:
    torch.manual_seed(0)
    return init_weights(ResnetGenerator(width=4, blocks=2, **settings)).eval()


def test_the_published_network_has_the_published_weights() -> None:
    """7 x 7 to 64, two halvings, nine blocks of 256, two doublings, 7 x 7 to one channel."""
    network = ResnetGenerator(width=64, blocks=9, upsample="resize")
    plain = 49 * 64 + 9 * (64 * 128 + 128 * 256) * 2 + 9 * 2 * 9 * 256**2 + 49 * 64 + 1
    assert sum(weight.numel() for weight in network.parameters()) == plain
    assert sum(isinstance(module, ResidualBlock) for module in network.modules()) == 9


@pytest.mark.parametrize("residual", [False, True])
def test_images_keep_their_size_and_range(residual: bool) -> None:
    image = 3 * torch.randn(2, 1, 16, 20)
    out = tiny(residual=residual)(image)
    assert out.shape == image.shape and float(out.detach().abs().max()) <= 1


def test_a_residual_network_starts_as_the_identity_and_can_leave_it() -> None:
    network, image = start_as_identity(tiny(residual=True)), torch.rand(1, 1, 16, 16) * 1.8 - 0.9
    torch.testing.assert_close(network(image), image)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    (network(image) - image - 0.05).square().mean().backward()
    optimizer.step()
    assert float((network(image) - image).mean().detach()) > 0.005


def test_a_plain_network_is_left_as_it_is() -> None:
    network = tiny()
    before = network.last.weight.clone()
    assert torch.equal(start_as_identity(network).last.weight, before) and float(before.abs().sum()) > 0


def test_each_sample_is_normalised_for_itself() -> None:
    network, image = tiny(), torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(network(image)[1:2], network(image[1:2]))


def test_the_number_of_blocks_follows_from_the_size() -> None:
    assert [blocks_for(size) for size in (64, 128, 255, 256, 512)] == [6, 6, 6, 9, 9]


def test_refusals() -> None:
    with pytest.raises(UserError, match="at least one"):
        ResnetGenerator(blocks=0)
    with pytest.raises(UserError, match="2 channels cannot be changed into 1"):
        ResnetGenerator(image_channels=2, residual=True)


MASK = (torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def test_spade_is_steered_by_the_mask() -> None:
    torch.manual_seed(0)
    network = SpadeGenerator(image_size=32, channels=(4, 8)).eval()
    with torch.no_grad():
        image, other = network(MASK), network(1 - MASK)
    assert image.shape == MASK.shape and float(image.abs().max()) <= 1
    assert float((image - other).abs().mean()) > 1e-3


@pytest.mark.parametrize("encoding", ["index", "onehot"])
def test_spade_tells_the_classes_apart(encoding: str) -> None:
    torch.manual_seed(0)
    network = SpadeGenerator(32, (4, 8), classes=3, encoding=encoding, texture=2).eval()
    with torch.no_grad():
        images = [network(MASK * index) for index in (1, 2, 3)]
    assert images[0].shape == MASK.shape
    assert all(float((a - b).abs().mean()) > 1e-4 for a, b in pairwise(images))


def test_spade_can_be_traced() -> None:
    network = SpadeGenerator(32, (4, 8), classes=3, encoding="onehot", texture=2).eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(network, MASK)(MASK), network(MASK))
