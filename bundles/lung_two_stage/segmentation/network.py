"""The segmentation networks: the paper's U-Net, and two baselines from MONAI."""

from __future__ import annotations

import torch
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus
from torch import Tensor, nn
from torch.nn import functional

from common.errors import UserError

HALVINGS_OF_MONAI = 4
"""Of `BasicUNet` and `BasicUNetPlusPlus`."""


class Segmenter(nn.Module):
    """Base of networks with one logit a pixel, whose sigmoid is the probability of a nodule.

    Images may have any size: their edges are repeated up to a multiple of 2 to the power of ``halvings``, and
    the logits are cropped. Subclasses implement ``logits``.

    Args:
        halvings: how often the network halves the image.
    """

    def __init__(self, halvings: int) -> None:
        super().__init__()
        self.multiple = 2**halvings

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 1, H, W) in [-1, 1] to logits (B, 1, H, W), always float32."""
        height, width = images.shape[-2], images.shape[-1]
        missing = [-height % self.multiple, -width % self.multiple]
        if missing[0] or missing[1]:
            images = functional.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")
        return self.logits(images)[..., :height, :width].float()

    def logits(self, images: Tensor) -> Tensor:
        """As ``forward``, for sides that are multiples of ``self.multiple``."""
        raise NotImplementedError


class DenseUNet(Segmenter):
    """The paper's U-Net: batch norm in the encoder, dense blocks in the decoder, transposed convolutions.

    ============  ====================================================  =====================
    stage         layers                                                shape out (S = 64)
    ============  ====================================================  =====================
    encoder 0     2 x (3 x 3 convolution, batch norm, ReLU)             (w, 64, 64)
    encoder k     2 x 2 max pooling, then as encoder 0                  (2^k w, 64 / 2^k, ...)
    bottom        max pooling, then as encoder 0; k = ``halvings``      (8 w, 8, 8)
    decoder k     2 x 2 transposed convolution, stride 2                (2^k w, 64 / 2^k, ...)
                  concatenated with encoder k's output                  (2^(k+1) w, ...)
                  dense block: ``layers`` x (batch norm, ReLU, 3 x 3    (2^(k+1) w + layers g,
                  convolution to g), each seeing all before it          ...)
                  1 x 1 convolution, batch norm, ReLU                   (2^k w, ...)
    head          1 x 1 convolution                                     (1, 64, 64)
    ============  ====================================================  =====================

    With the defaults (w = 16, g = 8, 3 layers, 3 halvings) there are 405 569 parameters.

    Chi 2023 names the parts but no sizes; widths, growth and depth are ours. Dense blocks as in Huang et al.,
    Densely connected convolutional networks, CVPR 2017, without bottlenecks.

    Example:
        >>> DenseUNet(width=4, halvings=2)(torch.zeros(1, 1, 30, 40)).shape
        torch.Size([1, 1, 30, 40])

    Args:
        width: w, channels of the first stage.
        halvings: how often the image is halved.
        growth: g, channels that a dense layer adds.
        layers: of a dense block.
        dropout: of what a dense layer adds.
    """

    def __init__(
        self, width: int = 16, halvings: int = 3, growth: int = 8, layers: int = 3, dropout: float = 0.0
    ) -> None:
        if min(width, halvings, growth, layers) < 1:
            raise UserError("DenseUNet: width, halvings, growth and layers must be at least 1")
        super().__init__(halvings)
        widths = [width * 2**k for k in range(halvings + 1)]
        self.encoder = nn.ModuleList(
            _convolutions(before, after) for before, after in zip([1, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1])
        self.decoder = nn.ModuleList(_dense(w, growth, layers, dropout) for w in widths[:-1])
        self.head = nn.Conv2d(width, 1, 1)

    def logits(self, images: Tensor) -> Tensor:
        """(B, 1, H, W), sides multiples of 2 to the power of ``halvings`` -> (B, 1, H, W)."""
        features = images
        kept: list[Tensor] = []
        for stage in self.encoder:
            features = stage(self.pool(features) if kept else features)
            kept.append(features)
        for up, block, skip in zip(
            reversed(self.up), reversed(self.decoder), reversed(kept[:-1]), strict=True
        ):
            features = block(torch.cat([up(features), skip], dim=1))
        return self.head(features)


class UNet(Segmenter):
    """MONAI's `BasicUNet` with batch norm: Ronneberger et al., MICCAI 2015.

    Args:
        width: channels of the first stage; they double at each of 4 halvings.

    Example:
        >>> UNet(width=4)(torch.zeros(1, 1, 30, 40)).shape
        torch.Size([1, 1, 30, 40])
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__(HALVINGS_OF_MONAI)
        self.net = BasicUNet(2, 1, 1, _features(width), norm="batch")

    def logits(self, images: Tensor) -> Tensor:
        """(B, 1, H, W), sides multiples of 16 -> (B, 1, H, W)."""
        return self.net(images)


class UNetPlusPlus(Segmenter):
    """MONAI's `BasicUNetPlusPlus` with batch norm: Zhou et al., DLMIA 2018; the last of its outputs.

    Args:
        width: as of `UNet`.

    Example:
        >>> UNetPlusPlus(width=4)(torch.zeros(1, 1, 30, 40)).shape
        torch.Size([1, 1, 30, 40])
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__(HALVINGS_OF_MONAI)
        self.net = BasicUNetPlusPlus(2, 1, 1, _features(width), norm="batch")

    def logits(self, images: Tensor) -> Tensor:
        """(B, 1, H, W), sides multiples of 16 -> (B, 1, H, W)."""
        return self.net(images)[-1]


class DenseLayer(nn.Module):
    """Adds ``growth`` channels to those it sees: (B, C, H, W) -> (B, C + growth, H, W)."""

    def __init__(self, channels: int, growth: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.added = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, growth, 3, padding=1, bias=False),
            nn.Dropout2d(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return torch.cat([features, self.added(features)], dim=1)


def _features(width: int) -> tuple[int, ...]:
    return (width, width, 2 * width, 4 * width, 8 * width, width)


def _convolutions(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(before, after, 3), *_convolution(after, after, 3))


def _convolution(before: int, after: int, side: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, side, padding=side // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


def _dense(width: int, growth: int, layers: int, dropout: float) -> nn.Sequential:
    """The dense block: (B, 2 w, H, W) -> (B, w, H, W)."""
    dense = [DenseLayer(2 * width + k * growth, growth, dropout) for k in range(layers)]
    return nn.Sequential(*dense, *_convolution(2 * width + layers * growth, width, 1))
