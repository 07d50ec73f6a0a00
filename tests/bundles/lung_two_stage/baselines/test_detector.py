from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from bundles.lung_two_stage.baselines.detector import (
    BACKGROUND,
    CODER,
    IGNORED,
    Boxes,
    BoxGrid,
    DetectedNodules,
    DetectionQuality,
    DetectionStep,
    PyramidAnchors,
    PyramidDetector,
    box_candidates,
    boxes_of,
    decode_boxes,
    detection_losses,
    match_anchors,
)
from common.data.intensity import Window
from common.errors import UserError
from common.training.steps import Context
from tests.bundles.lung_two_stage.baselines.made import drawn_squares, scan_of, squares


def test_anchors_of_each_level_lie_around_its_places() -> None:
    anchors = PyramidAnchors(strides=(4, 8), sizes=(6,))(torch.zeros(3, 1, 16, 24))
    assert anchors.shape == (4 * 6 + 2 * 3, 4)
    assert anchors[0].tolist() == [-1.0, -1.0, 5.0, 5.0]  # 6 x 6 around pixel (2, 2)
    assert anchors[1].tolist() == [-1.0, 3.0, 5.0, 9.0]  # next column first
    assert anchors[-1].tolist() == [6.0, 14.0, 18.0, 26.0]  # 12 x 12 around (12, 20)


def test_matching_by_overlap() -> None:
    """Boxes of 10 x 10: shifted by s columns the IoU is (10 - s) / (10 + s)."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    shifts = [0, 3, 4, 5, 9]  # IoU 1, 0.54, 0.43, 0.33, 0.05
    anchors = torch.tensor([[0.0, s, 10.0, 10.0 + s] for s in shifts])
    assert match_anchors(anchors, box).tolist() == [0, 0, IGNORED, BACKGROUND, BACKGROUND]
    assert match_anchors(anchors, box, low=0.05, high=0.3).tolist() == [0, 0, 0, 0, IGNORED]


def test_every_box_gets_its_best_anchor_whatever_the_overlap() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0], [40.0, 40.0, 50.0, 50.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [28.0, 28.0, 32.0, 32.0], [60.0, 60.0, 70.0, 70.0]])
    assert match_anchors(anchors, boxes).tolist() == [0, 1, BACKGROUND]  # the third box meets no anchor


def test_an_anchor_stands_for_the_box_that_it_overlaps_most() -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 11.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 7.0], [0.0, 0.0, 10.0, 10.0]])  # IoU 0.7 and 1 with the first
    assert match_anchors(anchors[:1], boxes[1:]).tolist() == [0]
    assert match_anchors(anchors, boxes).tolist()[1] == 1


def test_without_boxes_all_is_background() -> None:
    anchors = PyramidAnchors()(torch.zeros(1, 1, 32, 32))
    assert (match_anchors(anchors, torch.zeros(0, 4)) == BACKGROUND).all()


def test_boxes_of_a_mask() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 3:9] = 1
    mask[6, 3] = 2  # one pixel apart: the same nodule
    mask[15:18, 0:2] = 1
    assert boxes_of(mask).tolist() == [[2.0, 3.0, 7.0, 9.0], [15.0, 0.0, 18.0, 2.0]]
    assert boxes_of(np.zeros((4, 4))).shape == (0, 4)


def tiny_detector() -> PyramidDetector:
    torch.manual_seed(0)
    return PyramidDetector(channels=(8, 8, 16, 16), width=8)


def test_decoding_suppresses_what_overlaps() -> None:
    anchors = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 11.0], [20.0, 20.0, 30.0, 30.0], [40.0, 40.0, 50.0, 50.0]]
    )
    outputs = torch.zeros(4, 5)
    outputs[:, 0] = torch.tensor([1.0, 2.0, 0.0, -9.0])  # the last one scores 0.0001
    result = decode_boxes(outputs, anchors)
    assert result.corners.tolist() == anchors[[1, 2]].tolist()
    assert result.scores.tolist() == pytest.approx([0.8808, 0.5], abs=1e-4)
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
    result = decode_boxes(outputs, anchors)
    assert torch.allclose(result.corners.sort(0).values, boxes, atol=1e-3)


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


WINDOW = Window(-1000, 400)


class BrightBoxes(nn.Module):
    """Answers with the boxes of what is bright: a perfect detector of balls."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors, self.some = PyramidAnchors(), nn.Parameter(torch.zeros(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        anchors = self.anchors(images)
        outputs = torch.full((len(images), len(anchors), 5), -9.0)
        for output, image in zip(outputs, images[:, 0].numpy(), strict=True):
            boxes = torch.from_numpy(boxes_of(image > 0))
            output[: len(boxes), 1:] = CODER.encode_single(boxes, anchors[: len(boxes)])
            output[: len(boxes), 0] = boxes[:, 2] - boxes[:, 0] - 7  # larger ones are surer
        return outputs


def test_boxes_in_mm() -> None:
    """Rows 2 to 5 and columns 10 to 19: the centre is pixel (3.5, 14.5)."""
    boxes = Boxes(torch.tensor([[2.0, 10.0, 6.0, 20.0]]), torch.tensor([0.75]))
    (candidate,) = box_candidates(boxes, "a", 3, (2.5, 0.5, 0.8))
    assert candidate.position_mm == pytest.approx((7.5, 1.75, 11.6)) and candidate.score == 0.75
    assert candidate.radius_mm == pytest.approx((4 * 0.5 + 10 * 0.8) / 4)


def test_slices_of_a_ball_become_one_candidate() -> None:
    """Sides that are no multiples of 16."""
    scan = scan_of([(5, 20, 28, 6)], (11, 50, 60))
    result = DetectedNodules("made", BrightBoxes(), WINDOW).candidates(scan)
    assert len(result) == 1
    assert np.abs(np.array(result[0].position_mm) - [10, 20, 28]).max() <= 1
    assert 6 <= result[0].radius_mm <= 7


def test_quality_is_perfect_for_true_boxes_and_nothing_for_none() -> None:
    _, masks = squares([[(3, 4, 8)], [], [(16, 10, 12)]])
    anchors = PyramidAnchors()
    outputs = torch.full((3, len(anchors(masks)), 5), -9.0)
    for number, box in ((0, [3.0, 4.0, 11.0, 12.0]), (2, [16.0, 10.0, 28.0, 22.0])):
        outputs[number, 7, 0] = 4.0
        outputs[number, 7, 1:] = CODER.encode_single(torch.tensor([box]), anchors(masks)[7:8])[0]
    quality = DetectionQuality(anchors)
    quality.update((outputs, masks))
    assert quality.compute() == 1.0
    quality.reset()
    quality.update((outputs[:2], masks[:2]))
    quality.update((outputs[1:2], masks[2:]))
    assert quality.compute() == 0.5
    quality.reset()
    quality.update((outputs[1:2], masks[1:2]))
    assert quality.compute() == 0.0


@pytest.mark.slow
def test_a_trained_detector_finds_made_discs() -> None:
    """Discs among bars: after 150 steps nearly all are found with less than one false positive a picture."""
    torch.manual_seed(0)
    network = PyramidDetector(channels=(8, 16, 16, 32), width=16)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    step = DetectionStep(PyramidAnchors())
    for number in range(150):
        images, masks = discs_and_bars(8, seed=number)
        context = Context({"G": network})
        context.use({"image": images, "label": masks})
        total = step.total(step.losses(context))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    images, masks = discs_and_bars(32, seed=999)
    quality = DetectionQuality(PyramidAnchors())
    with torch.no_grad():
        quality.update((network.eval()(images), masks))
    untrained = DetectionQuality(PyramidAnchors())
    with torch.no_grad():
        fresh = PyramidDetector(channels=(8, 16, 16, 32), width=16).eval()
        untrained.update((fresh(images), masks))
    assert quality.compute() > 0.8 > 0.3 > untrained.compute()


def discs_and_bars(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures (B, 1, 64, 64) of a disc and a bar of equal brightness; the masks hold the disc."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    images, masks = np.full((2, count, 1, 64, 64), -1.0, np.float32)
    for image, mask in zip(images[:, 0], masks[:, 0], strict=True):
        centre, radius = random.uniform(8, 56, 2), random.uniform(3, 7)
        mask[:] = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
        top, thick = random.integers(0, 58), random.integers(2, 6)
        image[top : top + thick] = 0.8
        image[mask > 0] = 0.8
    images += random.normal(0, 0.1, images.shape).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(masks)


def test_boxes_are_outlined_as_bright_as_sure() -> None:
    pictures, anchors = torch.full((2, 1, 32, 32), 0.5), PyramidAnchors()
    outputs = torch.full((2, len(anchors(pictures)), 5), -9.0)
    outputs[0, 5, 0] = 1.0
    outputs[0, 5, 1:] = CODER.encode_single(torch.tensor([[4.0, 6.0, 14.0, 18.0]]), anchors(pictures)[5:6])
    drawn = BoxGrid(anchors, log=None, batch={}, folder="").draw(outputs, pictures)
    expected = torch.full((32, 32), 0.3)
    expected[4:14, 6:18] = float(torch.tensor(1.0).sigmoid())
    expected[5:13, 7:17] = 0.3
    assert torch.allclose(drawn[0, 0], expected) and torch.allclose(drawn[1], torch.tensor(0.3))
