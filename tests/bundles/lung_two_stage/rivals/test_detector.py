from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bundles.lung_two_stage.rivals.anchors import PyramidAnchors, boxes_of
from bundles.lung_two_stage.rivals.detection import Boxes, DetectionStep
from bundles.lung_two_stage.rivals.detection_losses import CODER
from bundles.lung_two_stage.rivals.detector import DetectedNodules, DetectionQuality, box_candidates
from bundles.lung_two_stage.rivals.detector_network import PyramidDetector
from common.data.intensity import Window
from common.training.steps import Context
from tests.bundles.lung_two_stage.rivals.made import scan_of, squares

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
    found = DetectedNodules("made", BrightBoxes(), WINDOW).candidates(scan)
    assert len(found) == 1
    assert np.abs(np.array(found[0].position_mm) - [10, 20, 28]).max() <= 1
    assert 6 <= found[0].radius_mm <= 7


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
        place, thick = random.integers(0, 58), random.integers(2, 6)
        image[place : place + thick] = 0.8
        image[mask > 0] = 0.8
    images += random.normal(0, 0.1, images.shape).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(masks)
