"""The same as a plain convolution."""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d

from common.networks.winograd import WinogradConvolution


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
