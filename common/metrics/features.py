"""Feature extractors by name; the name is part of the name of every metric that uses features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
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
GRID = 4  # cells per side
PROJECTED = 16  # channels of a stage in each cell
CELL_SCALE = 1 / GRID  # makes the cells' squared length that of an average over cells


class RandomVGG(nn.Module):
    """A VGG with random weights; the features are the channels of its four stages, averaged over the image.

    Outside ImageNet's domain a randomly initialised VGG separates distributions where ImageNet features
    mislead (Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative Models, section 4). The
    weights are He-normal; then each convolution is scaled to zero mean and unit variance on fixed synthetic
    textures, so that all stages have the same weight (Mishkin & Matas 2016, All you need is a good init).
    Early stages see texture and noise, late ones structure. Weights depend only on the seed.

    Images are resized to ``INPUT_SIZE`` pixels square, so values of different image sizes are comparable and
    finer detail is ignored.

    This extractor is blind to layout: averages over the image do not say where something is, so slices
    that are upside down or have shuffled quadrants score like real ones (`common.metrics.distortion_ladder`).
    `GridVGG` sees layout.

    Args:
        seed: part of the metric's definition; values of different seeds are not comparable.

    Example:
        >>> RandomVGG()(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 240])
    """

    name = "randvgg"
    dimension = sum(WIDTHS)
    sees_layout: bool | None = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.stages = _make_stages()
        self.stages.load_state_dict(_calibrated_weights(seed))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, dimension) float32 of images (B, 1, H, W) in [-1, 1]."""
        return torch.cat([stage.mean((2, 3)) for stage in self._maps(images)], dim=1)

    def _maps(self, images: Tensor) -> Iterator[Tensor]:
        """Yields the output of each stage: (B, WIDTHS[i], INPUT_SIZE / 2^i, INPUT_SIZE / 2^i)."""
        hidden = _resized(images.float(), INPUT_SIZE)
        for index, stage in enumerate(self.stages):
            hidden = stage(F.avg_pool2d(hidden, 2) if index else hidden)
            yield hidden


class GridVGG(RandomVGG):
    """`RandomVGG` with layout: its averages and the last two stages on a 4 x 4 grid.

    The 752 features are the 240 averages over the image and, for each of the 16 cells, 16 random projections
    of the channels of each of the two stages (orthonormal directions, scaled to keep lengths on average:
    Johnson & Lindenstrauss 1984). Without the projection there would be 3 312, and a Frechet distance would
    be slow. A cell is the difference from the image's own average, since patients and scanners differ most in
    overall brightness, which the averages hold. The cells are divided by 4, the root of their number: on
    chest CT the averages then have three times the squared length of the cells, and the cells three to five
    times the variance, so that neither dominates.

    Args:
        seed: see `RandomVGG`.

    Example:
        >>> GridVGG()(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 752])
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
        """Features (B, dimension) float32 of images (B, 1, H, W): averages, then cells by stage and row."""
        maps = list(self._maps(images))
        averages = [stage.mean((2, 3)) for stage in maps]
        parts = zip(maps[-2:], averages[-2:], (self.directions0, self.directions1), strict=True)
        cells = [_cells(stage, average) @ directions for stage, average, directions in parts]  # (B, 16, 16)
        return torch.cat([*averages, *(cell.flatten(1) for cell in cells)], dim=1)


def _cells(stage: Tensor, average: Tensor) -> Tensor:
    """Differences of the grid's cells from the average (B, C): (B, GRID^2, C)."""
    return CELL_SCALE * (F.adaptive_avg_pool2d(stage, GRID).flatten(2) - average[:, :, None]).transpose(1, 2)


def _directions(width: int, seed: int, index: int) -> Tensor:
    """`PROJECTED` orthogonal directions in a space of ``width`` channels, (width, PROJECTED) float32."""
    drawn = make_rng(seed, "gridvgg", index).standard_normal((width, PROJECTED))
    orthonormal = np.linalg.qr(drawn).Q
    return torch.from_numpy(orthonormal * (width / PROJECTED) ** 0.5).float()


def _make_stages() -> nn.ModuleList:
    """Four stages of two 3x3 convolutions, without weights and without use of the global random state."""

    def convolution(inputs: int, outputs: int) -> nn.Module:
        return nn.utils.skip_init(nn.Conv2d, inputs, outputs, 3, padding=1, padding_mode="replicate")

    return nn.ModuleList(
        nn.Sequential(convolution(inputs, outputs), nn.ReLU(), convolution(outputs, outputs), nn.ReLU())
        for inputs, outputs in zip((1, *WIDTHS[:-1]), WIDTHS, strict=True)
    )


@cache
@torch.no_grad()
def _calibrated_weights(seed: int) -> dict[str, Tensor]:
    """The state_dict of the stages: He-normal, each layer scaled to mean 0 and variance 1 on textures."""
    stages, rng = _make_stages(), make_rng(seed, "randvgg")
    for layer in stages.modules():
        if isinstance(layer, nn.Conv2d):
            drawn = rng.standard_normal(tuple(layer.weight.shape)) * (2.0 / layer.weight[0].numel()) ** 0.5
            layer.weight.copy_(torch.from_numpy(drawn))
            layer.bias.zero_()  # type: ignore[union-attr]
    hidden = _textures(CALIBRATION_IMAGES, INPUT_SIZE, seed)
    for index, stage in enumerate(stages):
        hidden = F.avg_pool2d(hidden, 2) if index else hidden
        for layer in stage.children():
            output = layer(hidden)
            if isinstance(layer, nn.Conv2d):
                scale = output.std((0, 2, 3)).clamp_min(1e-6)  # (C,)
                layer.weight.div_(scale[:, None, None, None])
                layer.bias.copy_(-output.mean((0, 2, 3)) / scale)  # type: ignore[union-attr]
                output = layer(hidden)
            hidden = output
    return stages.state_dict()


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
        sees_layout: whether anatomy in the wrong place scores worse, as measured by
            `common.metrics.distortion_ladder`; None if not measured, since the weights are not available.
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
    "randvgg": lambda weights: RandomVGG(),  # blind to layout; for comparison with earlier values
}


def extractor_by_name(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """Makes the extractor ``gridvgg``, ``lite0``, ``inception``, ``radimagenet`` or ``randvgg``.

    ``gridvgg`` needs no weights, ``lite0`` needs the extra of that name, ``inception`` and ``radimagenet`` a
    download at first use. ``randvgg`` is blind to layout and kept for comparison with earlier values.

    Args:
        weights: a file for a pretrained extractor, instead of the installed one or a download: TorchScript,
            for ``lite0`` a state_dict.
    Raises:
        UserError: unknown name, or weights that are missing and cannot be downloaded.

    Example:
        >>> extractor_by_name("gridvgg").dimension
        752
    """
    if name not in EXTRACTORS:
        raise UserError(f"extractor '{name}' is unknown; choose one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](None if weights is None else Path(weights))


def selection_extractor(name: str, weights: str | Path | None = None) -> FeatureExtractor:
    """`extractor_by_name` for a metric that chooses the best checkpoint.

    Raises:
        UserError: as for `extractor_by_name`, or the extractor is blind to layout and would accept shuffled
            quadrants.

    Example:
        >>> selection_extractor("gridvgg").sees_layout
        True
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
    """Computes features in batches: (N, 1, H, W) -> (N, dimension) float32 on the CPU.

    The extractor must already be on ``device``.

    Example:
        >>> extract(RandomVGG(), torch.zeros(3, 1, 32, 32), batch_size=2).shape
        torch.Size([3, 240])
    """
    batches = [extractor(batch.to(device)).float().cpu() for batch in images.split(batch_size)]
    return torch.cat(batches) if batches else torch.zeros(0, extractor.dimension)


PIXELS = 32  # per side; finer detail is noise for finding copies
SMALLEST = 1e-4  # length of a vector that is more than rounding


def pixel_vectors(images: Tensor, size: int = PIXELS) -> Tensor:
    """Images (N, 1, H, W) in [-1, 1] as vectors (N, size * size) float32 in [0, 1], see `small_images`."""
    return small_images(images, size).add(1).div(2).flatten(1)  # (N, 1, h, w) -> (N, h * w)


def small_images(images: Tensor, size: int = PIXELS) -> Tensor:
    """Reduces images (N, 1, H, W) to (N, 1, size, size) float32 by averaging areas; shorter sides stay."""
    height, width = (min(side, size) for side in images.shape[-2:])
    return F.adaptive_avg_pool2d(images.detach().float().cpu(), (height, width))


def pattern_vectors(images: Tensor, size: int = PIXELS) -> Tensor:
    """`pixel_vectors` of zero mean and unit length: squared distances are 2 - 2 times the correlation.

    Otherwise a flat or blurred image would be near every image and count as a copy. Constant images give
    zeros.

    Example:
        >>> pattern_vectors(torch.tensor([[-1.0, 1.0]]).view(1, 1, 1, 2)).mul(2**0.5).round().tolist()
        [[-1.0, 1.0]]
    """
    vectors = pixel_vectors(images, size)
    return F.normalize(vectors - vectors.mean(1, keepdim=True), eps=SMALLEST)
