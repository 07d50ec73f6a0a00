"""Labels as pictures: masks in grey levels, class maps in colours, condition images as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from common.metrics.labels import class_count, is_condition_image

# Okabe & Ito 2008, "Color universal design": told apart by people with any kind of colour blindness.
PALETTE = (
    (213, 94, 0),  # vermillion
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
    (187, 187, 187),  # grey
)
DIMMED = 0.35  # of its colour that a class keeps beside one that is pointed out


def label_picture(labels: Tensor) -> Tensor:
    """What a label looks like, in [0, 1].

    Args:
        labels: (B, C, H, W): masks (channel c shows as (c + 1) / C), one channel of class indices 0..K with
            K > 1 (each class in its colour), or condition images in [-1, 1].
    Returns:
        (B, 1, H, W), class maps (B, 3, H, W); float32 on the CPU.
    """
    labels = labels.detach().float().cpu()
    if is_condition_image(labels):
        return labels[:, :1].add(1).div(2)
    if labels.shape[1] == 1 and class_count(labels) > 1:
        return class_picture(labels)
    levels = torch.arange(1, labels.shape[1] + 1).view(1, -1, 1, 1) / labels.shape[1]  # (1, C, 1, 1)
    return (labels * levels).amax(dim=1, keepdim=True)


def class_picture(labels: Tensor, chosen: int | None = None) -> Tensor:
    """Class indices (B, 1, H, W) in colours on black (B, 3, H, W), all classes but ``chosen`` dimmed.

    The ninth class has the first one's colour again.
    """
    indices = labels[:, 0].round().long().clamp_min(0)  # (B, H, W)
    colours = torch.tensor([colour(index) for index in range(int(indices.max()) + 1)]) / 255  # (K + 1, 3)
    colours[0] = 0
    if chosen is not None:
        others = torch.arange(len(colours)) != chosen
        colours[others] *= DIMMED
    return colours[indices].permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)


def colour(index: int) -> tuple[int, int, int]:
    """The colour of class ``index`` (from 1) as red, green and blue, 0..255."""
    return PALETTE[(index - 1) % len(PALETTE)]
