"""Images as vectors of a few pixels: the space in which they are compared without an extractor."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

PIXELS = 32  # a side; details below are noise for what is asked here


def pixel_vectors(images: Tensor, size: int = PIXELS) -> Tensor:
    """Images (N, 1, H, W) in [-1, 1] as (N, size * size) float32 in [0, 1], each pixel the mean of an area.

    Sides that are shorter than ``size`` stay as they are.
    """
    height, width = (min(side, size) for side in images.shape[-2:])
    small = F.adaptive_avg_pool2d(images.detach().float().cpu(), (height, width))
    return small.add(1).div(2).flatten(1)  # (N, 1, h, w) -> (N, h * w)
