from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from common.networks.spade import SpadeGenerator

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
