"""The fast form draws what the network draws."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, instance_norm, pad

from common.networks.fast_resnet import FastResnet, WinogradConvolution, draw, fast, mirrored, normalise
from common.networks.generators import ResnetGenerator

IMAGE = torch.rand(2, 1, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def network(**settings: object) -> ResnetGenerator:
    torch.manual_seed(0)
    return ResnetGenerator(width=4, blocks=2, **settings).eval()


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
@pytest.mark.parametrize("residual", [True, False])
def test_it_is_the_network(upsample: str, residual: bool) -> None:
    plain = network(upsample=upsample, residual=residual)
    quick = fast(plain, (32, 48))
    assert isinstance(quick, FastResnet)
    with torch.inference_mode():
        expected = plain(IMAGE)
        torch.testing.assert_close(quick(IMAGE), expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(plain(IMAGE), expected, rtol=0, atol=0)  # it is left as it was


def test_other_networks_and_sizes_stay_as_they_are() -> None:
    identity, plain = nn.Identity(), network()
    assert fast(identity, (32, 32)) is identity
    assert fast(plain, (32, 36)) is plain
    assert fast(plain.double(), (32, 32)) is plain


def test_its_parts_are_the_plain_operations() -> None:
    maps = torch.randn(2, 5, 7, 6, generator=torch.Generator().manual_seed(2))
    last = maps.permute(0, 2, 3, 1).contiguous()
    torch.testing.assert_close(mirrored(last, 3).permute(0, 3, 1, 2), pad(maps, [3] * 4, mode="reflect"))
    layer = nn.Conv2d(5, 2, 3)
    with torch.inference_mode():
        torch.testing.assert_close(draw(last, layer), conv2d(maps, layer.weight, layer.bias))
    shifted = maps * 3 + 100
    norm = normalise(shifted.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm, instance_norm(shifted), rtol=1e-3, atol=1e-4)


def test_it_is_the_plain_convolution() -> None:
    numbers = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 10, 14, generator=numbers)
    weight = torch.randn(7, 5, 3, 3, generator=numbers)
    plain = conv2d(x, weight)
    ours = WinogradConvolution(weight)(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
    assert ours.shape == plain.shape == (2, 7, 8, 12)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_a_kernels_corner_moves_the_image() -> None:
    """Not symmetric: rows and columns are not exchanged, nothing is mirrored."""
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 0, 2] = 1
    x = torch.arange(36.0).reshape(1, 6, 6, 1)
    torch.testing.assert_close(WinogradConvolution(weight)(x)[0, ..., 0], x[0, :4, 2:, 0])
