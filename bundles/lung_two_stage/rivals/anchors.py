"""Anchor boxes of a feature pyramid, and which of them stand for which nodule.

Boxes are (row, column, row, column) in pixels, half open: first to last corner, MONAI's standard mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.data.box_utils import box_iou
from scipy import ndimage
from torch import Tensor, nn

IGNORED, BACKGROUND = -2, -1
"""Of `match_anchors`: an anchor that teaches nothing, and one without a nodule."""
SIZES = (6, 8)
"""Pixels."""
NEIGHBOURS = np.ones((3, 3), np.uint8)


class PyramidAnchors(nn.Module):
    """The anchors of all levels, one after the other, as the heads' outputs are ordered.

    Args:
        strides: pixels of the image that a place of each level's feature map stands for.
        sizes: sides of the finest level's squares in pixels; those of the others grow with the stride.
    """

    def __init__(self, strides: Sequence[int] = (4, 8, 16), sizes: Sequence[int] = SIZES) -> None:
        super().__init__()
        self.strides, self.per_place = tuple(strides), len(sizes)
        scales = [stride / strides[0] for stride in strides]
        self.generate = AnchorGeneratorWithAnchorShape(scales, [(size, size) for size in sizes])

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W), both sides multiples of the largest stride -> (A, 4) float32."""
        height, width = images.shape[-2:]
        maps = [images.new_empty(1, 1, height // s, width // s, dtype=torch.float32) for s in self.strides]
        return self.generate(images[:1], maps)[0]


def match_anchors(anchors: Tensor, boxes: Tensor, low: float = 0.4, high: float = 0.5) -> Tensor:
    """The box each anchor (A, 4) stands for: its number among ``boxes`` (K, 4), `BACKGROUND` or `IGNORED`.

    An anchor with an IoU of at least ``high`` stands for the box that it overlaps most; below ``low`` it is
    background; between the two it is ignored. Each box gets the anchor that overlaps it most in any case.
    """
    if not len(boxes):
        return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
    overlaps = box_iou(boxes.to(anchors), anchors)  # (K, A)
    best, matches = overlaps.max(0)
    matches = torch.where(best < high, torch.full_like(matches, IGNORED), matches)
    matches = torch.where(best < low, torch.full_like(matches, BACKGROUND), matches)
    most, favourite = overlaps.max(1)
    forced = most > 0  # a box beside all anchors has no favourite
    matches[favourite[forced]] = torch.arange(len(boxes), device=anchors.device)[forced]
    return matches


def boxes_of(mask: np.ndarray) -> np.ndarray:
    """Bounding boxes (K, 4) float32 of a mask's (H, W) pieces; pieces one pixel apart are one."""
    present = np.asarray(mask) > 0
    pieces, count = ndimage.label(ndimage.binary_dilation(present, NEIGHBOURS), NEIGHBOURS)
    found = ndimage.find_objects(pieces * present, count)
    corners = [(r.start, c.start, r.stop, c.stop) for r, c in (box for box in found if box is not None)]
    return np.array(corners, np.float32).reshape(-1, 4)
