"""Classifiers of candidates: VGG-style on patches, and its 3-D sibling on cubes.

Simonyan and Zisserman, Very deep convolutional networks, ICLR 2015: pairs of 3 x 3 convolutions, the width
doubles wherever the size halves, dense layers at the end. Batch norm, as VGG's later versions have it.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks import Convolution
from torch import Tensor, nn

from common.errors import UserError


class VggClassifier(nn.Module):
    """Patches or cubes -> logit of a nodule.

    Args:
        spatial_dims: 2 to look at a cube's middle slice alone, 3 for all of it.
        widths: channels of each block of two convolutions; after each the size halves in the plane, and from
            the second on in depth as well, down to one slice.
        hidden: units of the dense layer.
        dropout: before the last layer.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        hidden: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise UserError(f"VggClassifier: spatial_dims {spatial_dims}; give 2 for patches or 3 for cubes")
        self.spatial_dims = spatial_dims
        channels, layers = 1, []
        for number, width in enumerate(widths):
            layers += [_block(spatial_dims, channels, width), _pool(spatial_dims, deep=number > 0)]
            channels = width
        self.features = nn.Sequential(*layers)
        average = nn.AdaptiveAvgPool2d(1) if spatial_dims == 2 else nn.AdaptiveAvgPool3d(1)
        dense = [nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)]
        self.head = nn.Sequential(average, nn.Flatten(), *dense)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, D, S, S) in [-1, 1], any depth -> logits (B, 1)."""
        seen = images[:, :, images.shape[2] // 2] if self.spatial_dims == 2 else images
        logits: Tensor = self.head(self.features(seen))
        return logits


def _block(dims: int, channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        Convolution(dims, channels, width, act="relu", norm="batch", adn_ordering="NA"),
        Convolution(dims, width, width, act="relu", norm="batch", adn_ordering="NA"),
    )


def _pool(dims: int, deep: bool) -> nn.Module:
    """Halves the plane; in depth two slices become one, a single one stays."""
    if dims == 2:
        return nn.MaxPool2d(2)
    return nn.MaxPool3d((2 if deep else 1, 2, 2), ceil_mode=True)
