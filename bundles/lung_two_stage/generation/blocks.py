"""Parts that the generators and discriminators of small images share."""

from __future__ import annotations

import math

from torch import nn

from common.errors import UserError
from common.networks.norms import NONE, norm_layer
from common.networks.upsampling import upsampling

SMALLEST = 4
"""Side of the first map of a generator and of the last one of a discriminator."""
SLOPE = 0.2
EMBEDDING = 16
"""Values that stand for a class beside the latent."""


def doublings(image_size: int) -> int:
    """How often a map of `SMALLEST` pixels doubles up to the image.

    Raises:
        UserError: not a power of 2 from 16 up.
    """
    if image_size < 4 * SMALLEST or image_size & (image_size - 1):
        raise UserError(f"image_size {image_size} does not fit the networks; take 16, 32, 64 or 128")
    return int(math.log2(image_size // SMALLEST))


def doubling(kind: str, source: int, target: int) -> nn.Sequential:
    """(B, C, h, w) -> (B, D, 2h, 2w) with BatchNorm and ReLU."""
    layer = upsampling(kind, source, target, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(target), nn.ReLU())


def halving(source: int, target: int, norm: str = NONE) -> nn.Sequential:
    """(B, C, h, w) -> (B, D, h/2, w/2) with LeakyReLU."""
    convolution = nn.Conv2d(source, target, 4, stride=2, padding=1, bias=norm == NONE)
    return nn.Sequential(convolution, norm_layer(norm, target), nn.LeakyReLU(SLOPE))


def keeping_size(network: nn.Module) -> nn.Module:
    """Draws the convolutions' weights so that features keep their size (He et al. 2015).

    A network without norms needs that: with a deviation of 0.02 each layer halves what it is given.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, SLOPE, nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
