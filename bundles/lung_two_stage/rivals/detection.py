"""From the outputs of a detector to boxes, and a training step for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from monai.data.box_utils import non_max_suppression
from torch import Tensor

from bundles.lung_two_stage.rivals.anchors import PyramidAnchors, boxes_of
from bundles.lung_two_stage.rivals.detection_losses import CODER, detection_losses
from common.metrics.froc import LEAST_SCORE
from common.training.steps import Context, Step


@dataclass(frozen=True)
class Boxes:
    """What a detector sees in one picture, the surest first.

    Args:
        corners: (K, 4) row, column, row, column in pixels, half open.
        scores: (K,) 0 to 1.
    """

    corners: Tensor
    scores: Tensor


def decode_boxes(
    outputs: Tensor, anchors: Tensor, least: float = LEAST_SCORE, most: int = 20, overlap: float = 0.2
) -> Boxes:
    """The boxes of one picture after non-maximum suppression.

    Args:
        outputs: (A, 5) logit and box code of each anchor.
        anchors: (A, 4).
        least: score that counts.
        most: boxes at most.
        overlap: IoU above which the less sure of two boxes goes.
    """
    scores = outputs[:, 0].float().sigmoid()
    best = scores.topk(min(10 * most, len(scores))).indices
    best = best[scores[best] >= least]
    corners = CODER.decode_single(outputs[best, 1:].float(), anchors[best])
    kept = non_max_suppression(corners, scores[best], overlap, max_proposals=most)
    return Boxes(corners[kept], scores[best][kept])


class DetectionStep(Step):
    """Teaches a detector the boxes around a mask's pieces.

    Args:
        anchors: of the network's levels.
        low, high: IoU below which an anchor is background and from which it stands for a nodule.
        inputs: entries of the batch that the network takes.
        target: entry with the masks (B, 1, H, W); any value above 0 is nodule.
    """

    def __init__(
        self,
        anchors: PyramidAnchors,
        low: float = 0.4,
        high: float = 0.5,
        inputs: Sequence[str] = ("image",),
        target: str = "label",
        network: str = "G",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (network,), (), weights, repeat)
        self.anchors, self.low, self.high = anchors, low, high
        self.network, self.inputs, self.target = network, tuple(inputs), target

    def losses(self, context: Context) -> dict[str, Tensor]:
        """``NAME_score`` and ``NAME_box``."""
        outputs = context.output(self.network, self.inputs)
        masks = context.batch[self.target]
        boxes = [torch.from_numpy(boxes_of(mask)) for mask in masks[:, 0].cpu().numpy()]
        anchors = self.anchors(masks).to(outputs.device)
        losses = detection_losses(outputs, anchors, boxes, self.low, self.high)
        return {f"{self.name}_{name}": value for name, value in losses.items()}
