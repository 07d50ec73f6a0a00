"""What a detector of one class learns: focal loss for the scores, smooth L1 for the boxes.

Lin et al., Focal loss for dense object detection, ICCV 2017, equation 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.apps.detection.utils.box_coder import BoxCoder
from torch import Tensor
from torch.nn import functional as F

from bundles.lung_two_stage.rivals.anchors import IGNORED, match_anchors

CODER = BoxCoder((1.0, 1.0, 1.0, 1.0))


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """The loss of each logit, of the shape of ``logits``.

    Args:
        targets: 0 or 1.
        alpha: weight of the ones; the zeros get 1 - alpha.
        gamma: how much less the well classified count.
    """
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets  # 1 - p of the true class
    return (alpha * targets + (1 - alpha) * (1 - targets)) * wrong**gamma * plain


def detection_losses(
    outputs: Tensor, anchors: Tensor, boxes: Sequence[Tensor], low: float = 0.4, high: float = 0.5
) -> dict[str, Tensor]:
    """``score`` and ``box``: sums over anchors, divided by the number of anchors that stand for a nodule.

    Args:
        outputs: (B, A, 5): logit and box code of each anchor.
        anchors: (A, 4).
        boxes: true ones of each picture, (K, 4); there may be none.
        low, high: see `match_anchors`.
    """
    matches = torch.stack([match_anchors(anchors, true, low, high) for true in boxes])  # (B, A)
    outputs, positive = outputs.float(), matches >= 0
    count = positive.sum().clamp(min=1)
    score = focal_loss(outputs[..., 0], positive.float())[matches != IGNORED].sum()
    wanted = [true.to(anchors)[match[match >= 0]] for true, match in zip(boxes, matches, strict=True)]
    codes = CODER.encode_single(torch.cat(wanted), anchors.expand(len(matches), -1, -1)[positive])
    box = F.smooth_l1_loss(outputs[..., 1:][positive], codes, reduction="sum", beta=1 / 9)
    return {"score": score / count, "box": box / count}
