"""What a batch of labels is: a binary mask, a map of class indices or a condition image."""

from __future__ import annotations

from torch import Tensor

SMALLEST_SHARE = (
    1 / 1024
)  # of a slice's pixels; a structure with fewer is a sliver of its rim (64 at 256 x 256)


def is_condition_image(labels: Tensor) -> bool:
    """Whether labels (N, C, H, W) are images in [-1, 1] and not masks or class indices.

    An image has something below the middle of its range; masks and class indices are never negative.
    """
    return bool((labels < 0).any())


def class_count(labels: Tensor) -> int:
    """The highest class index in labels (N, C, H, W); at most 1 for masks and condition images."""
    return int(labels.max().round()) if labels.numel() else 0


def structure_mask(labels: Tensor, index: int) -> Tensor:
    """Where class ``index`` is: (N, 1, H, W) class indices -> (N, 1, H, W) bool.

    Slices with less than ``SMALLEST_SHARE`` of it count as slices without it: their mask is empty.
    """
    mask = labels[:, :1].round() == index
    share = mask.double().mean((2, 3), keepdim=True)  # (N, 1, 1, 1)
    return mask & (share >= SMALLEST_SHARE)
