"""Square crops around a structure, so that a distance of features is about it and not about the lungs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CROP_SIZE = 64  # pixels; crops are resized to it
MARGIN = 0.25  # of the structure's longer side, left on each side of it


def structure_crops(images: Tensor, masks: Tensor) -> Tensor:
    """The surroundings of each mask: (B, 1, H, W) and (B, 1, H, W) bool -> (B, 1, CROP_SIZE, CROP_SIZE).

    Raises:
        ValueError: a mask is empty.
    """
    crops = []
    for image, mask in zip(images.float(), masks[:, 0], strict=True):
        top, left, side = crop_box(mask)
        crop = image[None, :, top : top + side, left : left + side]  # (1, 1, side, side)
        size = (CROP_SIZE, CROP_SIZE)
        crops.append(F.interpolate(crop, size, mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(crops) if crops else images.new_zeros(0, 1, CROP_SIZE, CROP_SIZE)


def crop_box(mask: Tensor) -> tuple[int, int, int]:
    """The square around a mask (H, W) bool with its margin: top, left and side in pixels.

    It is moved into the image where it would stick out, and no larger than the image's shorter side.

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        raise ValueError("an empty mask has no surroundings")
    low = [int(places[0]) for places in (rows, columns)]
    extent = [int(places[-1]) + 1 - start for places, start in zip((rows, columns), low, strict=True)]
    side = min(round(max(extent) * (1 + 2 * MARGIN)), *mask.shape)
    top, left = (
        min(max(start + (length - side) // 2, 0), whole - side)
        for start, length, whole in zip(low, extent, mask.shape, strict=True)
    )
    return top, left, side
