from __future__ import annotations

import numpy as np
import torch

from bundles.lung_two_stage.rivals.anchors import (
    BACKGROUND,
    IGNORED,
    PyramidAnchors,
    boxes_of,
    match_anchors,
)


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
