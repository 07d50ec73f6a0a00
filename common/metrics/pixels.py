"""Images as vectors of a few pixels: the space in which they are compared without an extractor."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

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
