from __future__ import annotations

import pytest
import torch

from bundles.lung_two_stage.rivals.anchors import PyramidAnchors, boxes_of, match_anchors
from bundles.lung_two_stage.rivals.detection import DetectionStep, decode_boxes
from bundles.lung_two_stage.rivals.detection_losses import CODER, detection_losses
from bundles.lung_two_stage.rivals.detector_network import PyramidDetector
from common.errors import UserError
from common.training.steps import Context
from tests.bundles.lung_two_stage.rivals.made import drawn_squares, squares


def tiny_detector() -> PyramidDetector:
    torch.manual_seed(0)
    return PyramidDetector(channels=(8, 8, 16, 16), width=8)


def test_decoding_suppresses_what_overlaps() -> None:
    anchors = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 11.0], [20.0, 20.0, 30.0, 30.0], [40.0, 40.0, 50.0, 50.0]]
    )
    outputs = torch.zeros(4, 5)
    outputs[:, 0] = torch.tensor([1.0, 2.0, 0.0, -9.0])  # the last one scores 0.0001
    found = decode_boxes(outputs, anchors)
    assert found.corners.tolist() == anchors[[1, 2]].tolist()
    assert found.scores.tolist() == pytest.approx([0.8808, 0.5], abs=1e-4)
    assert len(decode_boxes(outputs, anchors, overlap=0.9).scores) == 3
    assert len(decode_boxes(outputs, anchors, most=1).scores) == 1
    assert decode_boxes(outputs, anchors, least=0.99).corners.shape == (0, 4)


def test_a_perfect_output_gives_the_true_boxes() -> None:
    """Encoding, matching and decoding fit together, and the losses see no error."""
    _, masks = squares([[(2, 3, 7), (18, 14, 12)]])
    anchors = PyramidAnchors()(masks)
    boxes = torch.from_numpy(boxes_of(masks[0, 0].numpy()))
    outputs = torch.full((len(anchors), 5), -20.0)
    matches = match_anchors(anchors, boxes)
    outputs[matches >= 0, 0] = 20.0
    outputs[matches >= 0, 1:] = CODER.encode_single(boxes[matches[matches >= 0]], anchors[matches >= 0])
    assert float(sum(detection_losses(outputs[None], anchors, [boxes]).values())) < 1e-4
    found = decode_boxes(outputs, anchors)
    assert torch.allclose(found.corners.sort(0).values, boxes, atol=1e-3)


def test_outputs_are_in_the_order_of_the_anchors() -> None:
    """A network that answers to brightness alone fires at the anchors on the bright place."""
    network, images = tiny_detector().eval(), torch.zeros(1, 1, 64, 96)
    anchors = PyramidAnchors()(images)
    assert network(images).shape == (1, len(anchors), 5)
    with torch.no_grad():
        plain = network(images)[0, :, 0]
        images[0, 0, 40:56, 72:88] = 4.0
        change = (network(images)[0, :, 0] - plain).abs()
    top = anchors[change.topk(10).indices]
    centres = (top[:, :2] + top[:, 2:]) / 2
    assert (centres - torch.tensor([48.0, 80.0])).abs().max() <= 20


def test_training_lowers_the_loss_on_made_squares() -> None:
    network = tiny_detector()
    step = DetectionStep(PyramidAnchors(), weights={"G_box": 2.0})
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    images, masks = drawn_squares(8, seed=1)
    totals = []
    for _ in range(15):
        context = Context({"G": network})
        context.use({"image": images, "label": masks})
        losses = step.losses(context)
        total = step.total(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert set(losses) == {"G_score", "G_box"}
    assert sum(totals[-3:]) < 0.5 * sum(totals[:3])


def test_bad_settings_are_one_line() -> None:
    with pytest.raises(UserError, match="width 12"):
        PyramidDetector(width=12)
