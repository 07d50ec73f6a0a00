"""Layers that double the size of a feature map: (B, C, h, w) -> (B, D, 2h, 2w)."""

from __future__ import annotations

from torch import nn

from common.errors import UserError


def upsampling(kind: str, source: int, target: int, bias: bool) -> nn.Module:
    """The layer of that name.

    Args:
        kind: ``transposed``, a 4 x 4 transposed convolution, or ``resize``, nearest pixels and a 3 x 3
            convolution, which leaves no checkerboard (Odena et al. 2016).
        source, target: channels C and D.
        bias: of the convolution; none where a norm follows.
    Raises:
        UserError: no such layer.
    """
    if kind == "transposed":
        return nn.ConvTranspose2d(source, target, 4, stride=2, padding=1, bias=bias)
    if kind == "resize":
        convolution = nn.Conv2d(source, target, 3, padding=1, bias=bias)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution)
    raise UserError(f"upsampling {kind!r} is unknown; choose transposed or resize")
