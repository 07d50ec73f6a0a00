"""Patch discriminators on MONAI's nets, behind one call that all adversarial steps use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils.parametrizations import spectral_norm

from common.networks.blocks import monai_norm


class DiscriminatorOutput(NamedTuple):
    """A discriminator's output: one map of logits and a list of feature maps per scale."""

    logits: list[Tensor]
    features: list[list[Tensor]]


class ConditionalPatchDiscriminator(nn.Module):
    """MONAI's PatchDiscriminator on image and condition concatenated, at one or several scales.

    With ``num_layers_d=3`` and kernel 4 a logit sees 70 x 70 pixels (Isola et al. 2017); each further scale
    looks at the picture halved once more (Wang et al. 2018).

    Args:
        image_channels, condition_channels: of the two inputs; 0 of the condition for unconditional.
        channels: width of the first layer.
        num_layers_d: layers that double the width; 1, 2, 3, 4 see 16, 34, 70, 142 pixels.
        scales: number of scales.
        norm: ``batch``, ``instance`` (with a learned scale and shift), ``layer`` or ``none``, or any other in
            MONAI's terms: ``("instance", {"affine": False})``. Of all layers but the first and the last.
        spectral: spectral normalisation of every convolution (Miyato et al. 2018).

    Example:
        >>> discriminator = ConditionalPatchDiscriminator(channels=8, num_layers_d=1, scales=2)
        >>> output = discriminator(torch.zeros(2, 1, 32, 32), torch.zeros(2, 1, 32, 32))
        >>> [tuple(logits.shape) for logits in output.logits]
        [(2, 1, 14, 14), (2, 1, 6, 6)]
    """

    def __init__(
        self,
        image_channels: int = 1,
        condition_channels: int = 1,
        channels: int = 64,
        num_layers_d: int = 3,
        scales: int = 1,
        norm: str | tuple[str, dict[str, Any]] | None = "batch",
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            PatchDiscriminator(
                spatial_dims=2,
                channels=channels,
                in_channels=image_channels + condition_channels,
                num_layers_d=num_layers_d,
                norm=cast(Any, monai_norm(norm)),  # MONAI's layers take None, its annotation does not say so
            )
            for _ in range(scales)
        )
        if spectral:
            self.apply(_normalise_spectrally)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Image (B, C, H, W), condition (B, K, H, W) -> logits (B, 1, h, w) and features, a list a scale."""
        x = image if condition is None else torch.cat([image, condition], dim=1)  # (B, C + K, H, W)
        outputs: list[Sequence[Tensor]] = []
        for net in self.nets:
            outputs.append(net(x))
            x = avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return DiscriminatorOutput([o[-1] for o in outputs], [list(o[:-1]) for o in outputs])


def _normalise_spectrally(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        spectral_norm(module)
