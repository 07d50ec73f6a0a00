from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from bundles.lung_two_stage.rivals.anchors import PyramidAnchors
from bundles.lung_two_stage.rivals.detection_losses import CODER, detection_losses, focal_loss


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3), math.log(3)])  # p = 1/2, 3/4, 3/4
    expected = [0.25 * 0.5**2 * math.log(2), 0.25 * 0.25**2 * math.log(4 / 3), 0.75 * 0.75**2 * math.log(4)]
    assert focal_loss(logits, torch.tensor([1.0, 1.0, 0.0])).tolist() == pytest.approx(expected)
    plain = F.binary_cross_entropy_with_logits(logits, torch.ones(3), reduction="none")
    assert torch.allclose(focal_loss(logits, torch.ones(3), 0.5, 0.0), plain / 2)


def test_losses_by_hand() -> None:
    """Anchor 0 is the box moved by one row: code (1/8, 0, 0, 0); anchor 1 is ignored, anchor 2 background."""
    box = torch.tensor([[1.0, 0.0, 9.0, 8.0]])
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 3.0, 8.0, 11.0], [20.0, 20.0, 28.0, 28.0]])
    outputs = torch.zeros(1, 3, 5)
    outputs[0, 1, 0] = 50.0  # would be dear if it counted
    outputs[0, 2, 1:] = 7.0  # boxes of background cost nothing
    losses = detection_losses(outputs, anchors, [box], low=0.3)
    assert float(losses["score"]) == pytest.approx((0.25 + 0.75) * 0.25 * math.log(2))
    assert float(losses["box"]) == pytest.approx(1 / 8 - 0.5 / 9)  # linear beyond beta = 1/9


def test_losses_are_per_positive_anchor_of_the_batch() -> None:
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 28.0, 28.0]])
    outputs = torch.zeros(2, 2, 5)
    losses = detection_losses(outputs, anchors, [anchors, torch.zeros(0, 4)])
    assert float(losses["score"]) == pytest.approx((2 * 0.25 + 2 * 0.75) * 0.25 * math.log(2) / 2)


def test_a_batch_without_boxes_has_a_loss_and_a_gradient() -> None:
    anchors = PyramidAnchors()(torch.zeros(1, 1, 32, 32))
    outputs = torch.zeros(2, len(anchors), 5, requires_grad=True)
    losses = detection_losses(outputs, anchors, [torch.zeros(0, 4)] * 2)
    (losses["score"] + losses["box"]).backward()
    assert float(losses["box"].detach()) == 0.0 and outputs.grad is not None
    assert (outputs.grad[..., 0] > 0).all()


def test_codes_lead_back_to_the_boxes() -> None:
    boxes = torch.tensor([[1.0, 2.0, 7.5, 12.0], [3.0, 0.0, 5.0, 30.0]])
    anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [10.0, 4.0, 16.0, 10.0]])
    codes = CODER.encode_single(boxes, anchors)
    assert codes[0].tolist() == pytest.approx(
        [(4.25 - 4) / 8, (7 - 4) / 8, math.log(6.5 / 8), math.log(10 / 8)]
    )
    assert torch.allclose(CODER.decode_single(codes, anchors), boxes, atol=1e-5)
