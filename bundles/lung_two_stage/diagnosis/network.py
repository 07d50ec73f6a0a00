"""The diagnosis: a small classifier of whole slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SliceClassifier(nn.Module):
    """Slice to class: convolutions that halve, then the strongest and the mean response of every channel.

    (B, 1, H, W) in [-1, 1] -> logits (B, classes). A nodule covers a hundredth of a slice: in a mean alone it
    would drown.

    Args:
        classes: 2 for nodule or none.
        width: channels of the first level; they double up to four times as many.
        levels: each two 3 x 3 convolutions with batch norm and ReLU; a 2 x 2 max pooling between two levels.
        dropout: before the last layer.
    """

    def __init__(self, classes: int = 2, width: int = 16, levels: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        source = 1
        for level in range(levels):
            target = width * min(2**level, 4)
            layers += [*_convolved(source, target), *_convolved(target, target)]
            layers += [nn.MaxPool2d(2)] if level < levels - 1 else []
            source = target
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(2 * source, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] -> logits (B, classes)."""
        maps = self.features(images)  # (B, C, h, w)
        pooled = torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], dim=1)  # (B, 2 C)
        logits: Tensor = self.last(self.dropout(pooled))
        return logits


def _convolved(source: int, target: int) -> list[nn.Module]:
    convolution = nn.Conv2d(source, target, 3, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(target), nn.ReLU()]
