"""The offline feature extractor: a VGG-style network with fixed random weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.random import generator

WIDTHS = (16, 32, 64, 128)
INPUT_SIZE = 128
CALIBRATION_IMAGES = 16


class Stage(nn.Sequential):
    """Two 3x3 convolutions at one resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(_convolution(inputs, outputs), nn.ReLU(), _convolution(outputs, outputs), nn.ReLU())


def _convolution(inputs: int, outputs: int) -> nn.Module:
    """A convolution whose weights are still to be drawn: the global random state is left alone."""
    return nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1, padding_mode="replicate")


class RandomVGG(nn.Module):
    """Four stages of two 3x3 convolutions; the features are every stage's channels, averaged over the image.

    Off ImageNet's domain a randomly initialised VGG tells distributions apart where ImageNet features
    mislead (Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models, section 4).
    The weights are He-normal, then each convolution is scaled to zero mean and unit variance on fixed
    synthetic textures, so that all stages weigh alike (Mishkin & Matas 2016, All you need is a good init).
    Early stages see texture and noise, late ones structure. Same seed, same weights, whatever the global
    random state.

    Images are resized to ``INPUT_SIZE`` pixels square first, so values are comparable between image sizes,
    and detail finer than that is not judged.

    Args:
        seed: part of the metric's definition; values of different seeds do not compare.
    """

    name = "randvgg"
    dimension = sum(WIDTHS)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        self.stages = nn.ModuleList(Stage(a, b) for a, b in zip(inputs, WIDTHS, strict=True))
        self._draw_weights(seed)
        self._calibrate(_textures(CALIBRATION_IMAGES, INPUT_SIZE, seed))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: (B, 1, H, W) in [-1, 1].
        Returns:
            (B, dimension) float32.
        """
        hidden = _resized(images.float(), INPUT_SIZE)
        pooled = []
        for index, stage in enumerate(self.stages):
            hidden = stage(F.avg_pool2d(hidden, 2) if index else hidden)  # (B, C, H / 2^i, W / 2^i)
            pooled.append(hidden.mean((2, 3)))  # (B, C)
        return torch.cat(pooled, dim=1)

    def _convolutions(self) -> Iterator[nn.Conv2d]:
        return (module for module in self.modules() if isinstance(module, nn.Conv2d))

    def _draw_weights(self, seed: int) -> None:
        numbers = generator(seed, "randvgg")
        for layer in self._convolutions():
            fan_in = layer.weight[0].numel()
            drawn = numbers.standard_normal(tuple(layer.weight.shape)) * (2.0 / fan_in) ** 0.5
            layer.weight.data.copy_(torch.from_numpy(drawn))
            assert layer.bias is not None
            layer.bias.data.zero_()

    @torch.no_grad()
    def _calibrate(self, images: Tensor) -> None:
        """Scales each convolution in turn: its channels get mean 0 and variance 1 on ``images``."""
        hidden = images
        for index, stage in enumerate(self.stages):
            hidden = F.avg_pool2d(hidden, 2) if index else hidden
            for layer in stage.children():
                if isinstance(layer, nn.Conv2d):
                    _standardise(layer, layer(hidden))
                hidden = layer(hidden)


def _standardise(layer: nn.Conv2d, output: Tensor) -> None:
    scale = output.std((0, 2, 3)).clamp_min(1e-6)  # (C,)
    assert layer.bias is not None
    centre = output.mean((0, 2, 3)) - layer.bias
    layer.weight.div_(scale[:, None, None, None])
    layer.bias.copy_(-centre / scale)


def _textures(count: int, size: int, seed: int) -> Tensor:
    """Noise with the 1/f amplitude spectrum of natural images: (count, 1, size, size) in [-1, 1]."""
    numbers = generator(seed, "randvgg", "textures")
    white = torch.from_numpy(numbers.standard_normal((count, 1, size, size)))
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    spectrum = torch.fft.rfft2(white) / frequency.clamp_min(1.0 / size)
    images = torch.fft.irfft2(spectrum, s=(size, size))
    return (images / images.std() * 0.6).clamp(-1, 1).float()


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
