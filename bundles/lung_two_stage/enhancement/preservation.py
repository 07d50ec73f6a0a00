"""The enhancer's own term: nodules must survive, or their masks become lies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from common.metrics.faithfulness import FEWEST_PIXELS, lesion_ring


class NodulePreservation:
    """Distance of the enhanced image from the composite, in and around the nodules only.

    The mean over the region's pixels of the absolute difference, of gray values and (weighted) of their
    differences to the next pixel down and to the right: edges stay where they are. Elsewhere the enhancer is
    free, but for the nodules' contrast: what is taken from a nodule's darker half must be taken from the
    darker half of the ring around it, too, as `common.metrics.faithfulness` measures them.

    Args:
        gradient: weight of the differences.
        margin: pixels around a nodule that belong to its region.
        contrast: weight of the change of contrast, the mean over images of its absolute value.
    """

    def __init__(self, gradient: float = 1.0, margin: int = 2, contrast: float = 0.0) -> None:
        self.gradient, self.margin, self.contrast = float(gradient), int(margin), float(contrast)

    def __call__(self, enhanced: Tensor, composite: Tensor, mask: Tensor | None) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] and masks, above 0 in nodules -> scalar; 0 without nodules."""
        if mask is None:
            raise ValueError("the batch has no mask; nodules cannot be preserved")
        region = self.region(mask)
        change = (enhanced - composite).float()
        lost = _mean(change.abs(), region)
        if self.contrast:
            lost = lost + self.contrast * contrast_change(change, composite, mask)
        if not self.gradient:
            return lost
        down = _mean(change.diff(dim=2).abs(), region[:, :, 1:] * region[:, :, :-1])
        right = _mean(change.diff(dim=3).abs(), region[..., 1:] * region[..., :-1])
        return lost + self.gradient * (down + right)

    def region(self, mask: Tensor) -> Tensor:
        """The nodules grown by the margin: (B, 1, H, W) -> {0, 1}."""
        nodules = (mask > 0).float()
        if not self.margin:
            return nodules
        return max_pool2d(nodules, 2 * self.margin + 1, stride=1, padding=self.margin)


def contrast_change(change: Tensor, composite: Tensor, mask: Tensor) -> Tensor:
    """How much a change (B, 1, H, W) takes from or adds to the nodules' contrast: the mean of absolutes.

    Which pixels are the darker halves is told by the composite. Images without a nodule count 0.
    """
    nodules = (mask > 0).any(1)
    found = [
        (_darker(change[n, 0], composite[n, 0], inside) - _darker(change[n, 0], composite[n, 0], ring)).abs()
        for n, (inside, ring) in enumerate(zip(nodules, lesion_ring(nodules), strict=True))
        if min(int(inside.sum()), int(ring.sum())) >= FEWEST_PIXELS
    ]
    return torch.stack(found).sum() / len(mask) if found else change.sum() * 0.0


def _darker(values: Tensor, gray: Tensor, there: Tensor) -> Tensor:
    """The mean of ``values`` over the half of the pixels ``there`` that is darker in ``gray``."""
    order = gray[there].argsort()
    return values[there][order[: (len(order) + 1) // 2]].mean()


def _mean(values: Tensor, region: Tensor) -> Tensor:
    return (values * region).sum() / torch.clamp_min(region.sum(), 1.0)
