"""Feature extractors by name. The name is part of every metric's name that rests on features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import UserError
from common.metrics.pretrained import inception, lite0, radimagenet
from common.rng import make_rng

WIDTHS = (16, 32, 64, 128)
INPUT_SIZE = 128
CALIBRATION_IMAGES = 16
GRID = 4  # cells a side
PROJECTED = 16  # channels of a stage in each cell
CELL_SCALE = 1 / GRID  # the cells' squared length is then that of an average over cells


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

    It is blind to layout: averages over the image do not tell where something is, so slices turned upside
    down or cut into quadrants and shuffled score as real ones do (`common.metrics.distortion_ladder`).
    `GridVGG` is not.

    Args:
        seed: part of the metric's definition; values of different seeds do not compare.
    """

    name = "randvgg"
    dimension = sum(WIDTHS)
    sees_layout: bool | None = False

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
        return torch.cat([stage.mean((2, 3)) for stage in self._maps(images)], dim=1)

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """What each stage gives: (B, WIDTHS[i], INPUT_SIZE / 2^i, INPUT_SIZE / 2^i)."""
        hidden = _resized(images.float(), INPUT_SIZE)
        for index, stage in enumerate(self.stages):
            hidden = stage(F.avg_pool2d(hidden, 2) if index else hidden)
            yield hidden

    def _convolutions(self) -> Iterator[nn.Conv2d]:
        return (module for module in self.modules() if isinstance(module, nn.Conv2d))

    def _draw_weights(self, seed: int) -> None:
        numbers = make_rng(seed, "randvgg")
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


class GridVGG(RandomVGG):
    """`RandomVGG` that sees where things are: beside its averages, the last two stages on a 4 x 4 grid.

    The features are the 240 averages over the image and, of each of the 16 cells, 16 random projections of
    each of the two stages' channels (orthonormal directions, scaled so that lengths are kept on average:
    Johnson & Lindenstrauss 1984): 752 in all, against 3 312 without the projection, so that a Frechet
    distance costs a fraction of a second. Of the cells it is the difference from the image's own average:
    how bright an image is as a whole, in which patients and scanners differ most, is left to the averages.
    The cells are divided by 4, the root of their number. On chest CT the averages then have three times the
    squared length of the cells, and the cells three to five times the variance: neither outweighs the other.

    Args:
        seed: as of `RandomVGG`.
    """

    name = "gridvgg"
    dimension = sum(WIDTHS) + 2 * PROJECTED * GRID**2
    sees_layout: bool | None = True
    directions0: Tensor
    directions1: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        for index, width in enumerate(WIDTHS[-2:]):
            self.register_buffer(f"directions{index}", _directions(width, seed, index), persistent=False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: (B, 1, H, W) in [-1, 1].
        Returns:
            (B, dimension) float32: first the averages, then the cells, row by row, of either stage.
        """
        maps = list(self._maps(images))
        averages = [stage.mean((2, 3)) for stage in maps]
        parts = zip(maps[-2:], averages[-2:], (self.directions0, self.directions1), strict=True)
        cells = [_cells(stage, average) @ directions for stage, average, directions in parts]  # (B, 16, 16)
        return torch.cat([*averages, *(cell.flatten(1) for cell in cells)], dim=1)


def _cells(stage: Tensor, average: Tensor) -> Tensor:
    """How the cells of a grid differ from the average (B, C): (B, GRID^2, C)."""
    return CELL_SCALE * (F.adaptive_avg_pool2d(stage, GRID).flatten(2) - average[:, :, None]).transpose(1, 2)


def _directions(width: int, seed: int, index: int) -> Tensor:
    """`PROJECTED` orthogonal directions in a space of ``width`` channels, (width, PROJECTED) float32."""
    drawn = make_rng(seed, "gridvgg", index).standard_normal((width, PROJECTED))
    orthonormal = np.linalg.qr(drawn).Q
    return torch.from_numpy(orthonormal * (width / PROJECTED) ** 0.5).float()


def _standardise(layer: nn.Conv2d, output: Tensor) -> None:
    scale = output.std((0, 2, 3)).clamp_min(1e-6)  # (C,)
    assert layer.bias is not None
    centre = output.mean((0, 2, 3)) - layer.bias
    layer.weight.div_(scale[:, None, None, None])
    layer.bias.copy_(-centre / scale)


def _textures(count: int, size: int, seed: int) -> Tensor:
    """Noise with the 1/f amplitude spectrum of natural images: (count, 1, size, size) in [-1, 1]."""
    numbers = make_rng(seed, "randvgg", "textures")
    white = torch.from_numpy(numbers.standard_normal((count, 1, size, size)))
    frequency = torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
    spectrum = torch.fft.rfft2(white) / frequency.clamp_min(1.0 / size)
    images = torch.fft.irfft2(spectrum, s=(size, size))
    return (images / images.std() * 0.6).clamp(-1, 1).float()


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


class FeatureExtractor(Protocol):
    """Turns images (B, 1, H, W) in [-1, 1] into features (B, dimension) float32, without gradients.

    Attributes:
        sees_layout: whether anatomy in the wrong place is told from anatomy in its place, as measured by
            `common.metrics.distortion_ladder`: False is blind to layout, None not measured for want of the
            weights.
    """

    name: str
    dimension: int
    sees_layout: bool | None

    def __call__(self, images: Tensor) -> Tensor: ...


EXTRACTORS: dict[str, Callable[[Path | None], FeatureExtractor]] = {
    "gridvgg": lambda weights: GridVGG(),
    "lite0": lite0,
    "inception": inception,
    "radimagenet": radimagenet,
    "randvgg": lambda weights: RandomVGG(),  # blind to layout: for values that compare with earlier ones
}


def extractor_by_name(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """The extractor called ``name``: ``gridvgg``, ``lite0``, ``inception``, ``radimagenet`` or ``randvgg``.

    ``gridvgg`` needs nothing, ``lite0`` the extra of that name, the next two a download at first use.
    ``randvgg`` is blind to layout and stays for values that are to compare with earlier ones.

    Args:
        weights: a file for the pretrained ones, instead of the installed one or a download: TorchScript, for
            ``lite0`` a state_dict.
    Raises:
        UserError: unknown name, or weights that are neither on this machine nor can be fetched.
    """
    if name not in EXTRACTORS:
        raise UserError(f"extractor '{name}' is unknown; choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](None if weights is None else Path(weights))


def choosing_extractor(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """`extractor_by_name` for a metric that chooses the best checkpoint.

    Raises:
        UserError: as `extractor_by_name`, or an extractor that is blind to layout: it would take shuffled
            quadrants for real slices.
    """
    extractor = extractor_by_name(name, weights)
    if extractor.sees_layout is False:
        raise UserError(
            f"extractor {name} is blind to layout and cannot choose the best model; "
            "train with extractor gridvgg or lite0 (evaluating with it stays possible)"
        )
    return extractor


@torch.inference_mode()
def extract(
    extractor: FeatureExtractor, images: Tensor, batch_size: int = 16, device: torch.device | str = "cpu"
) -> Tensor:
    """Features of any number of images, in batches: (N, 1, H, W) -> (N, dimension) float32 on the CPU.

    The extractor must already be on ``device``.
    """
    batches = [extractor(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    return torch.cat(batches) if batches else torch.zeros(0, extractor.dimension)


PIXELS = 32  # a side; details below are noise for what is asked here
SMALLEST = 1e-4  # length of a vector that shows something


def pixel_vectors(images: Tensor, size: int = PIXELS) -> Tensor:
    """Images (N, 1, H, W) in [-1, 1] as (N, size * size) float32 in [0, 1], each pixel the mean of an area.

    Sides that are shorter than ``size`` stay as they are.
    """
    return small_images(images, size).add(1).div(2).flatten(1)  # (N, 1, h, w) -> (N, h * w)


def small_images(images: Tensor, size: int = PIXELS) -> Tensor:
    """Images (N, 1, H, W) as (N, 1, size, size) float32 in the same range, each pixel the mean of an area.

    Sides that are shorter than ``size`` stay as they are.
    """
    height, width = (min(side, size) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(images.detach().float().cpu(), (height, width))


def pattern_vectors(images: Tensor, size: int = PIXELS) -> Tensor:
    """`pixel_vectors` of zero mean and unit length: squared distances are 2 - 2 times the correlation.

    Without this a flat or blurred image is near to every image and passes for a copy of one. A constant image
    is all zeros.
    """
    vectors = pixel_vectors(images, size)
    return F.normalize(vectors - vectors.mean(1, keepdim=True), eps=SMALLEST)
