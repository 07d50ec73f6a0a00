"""The enhancer's own term: nodules must survive, or their masks become lies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d


class NodulePreservation:
    """Distance of the enhanced image from the composite, in and around the nodules only.

    The mean over the region's pixels of the absolute difference, of gray values and (weighted) of their
    differences to the next pixel down and to the right: edges stay where they are. Elsewhere the enhancer is
    free.

    Args:
        gradient: weight of the differences.
        margin: pixels around a nodule that belong to its region.
    """

    def __init__(self, gradient: float = 1.0, margin: int = 2) -> None:
        self.gradient, self.margin = float(gradient), int(margin)

    def __call__(self, enhanced: Tensor, composite: Tensor, mask: Tensor | None) -> Tensor:
        """Images (B, 1, H, W) in [-1, 1] and masks, above 0 in nodules -> scalar; 0 without nodules."""
        if mask is None:
            raise ValueError("the batch has no mask; nodules cannot be preserved")
        region = self.region(mask)
        change = (enhanced - composite).float()
        lost = _mean(change.abs(), region)
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


def _mean(values: Tensor, region: Tensor) -> Tensor:
    return (values * region).sum() / torch.clamp_min(region.sum(), 1.0)
