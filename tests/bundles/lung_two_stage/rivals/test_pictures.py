from __future__ import annotations

from pathlib import Path

import torch

from bundles.lung_two_stage.rivals.anchors import PyramidAnchors
from bundles.lung_two_stage.rivals.classifying import BlobProposer, CandidatePoints
from bundles.lung_two_stage.rivals.cube_data import CubeData
from bundles.lung_two_stage.rivals.detection_losses import CODER
from bundles.lung_two_stage.rivals.pictures import DrawnBoxes, probability_pictures, shown_cubes
from tests.bundles.lung_two_stage.rivals.made import write_crops


def test_boxes_are_outlined_as_bright_as_sure() -> None:
    pictures, anchors = torch.full((2, 1, 32, 32), 0.5), PyramidAnchors()
    outputs = torch.full((2, len(anchors(pictures)), 5), -9.0)
    outputs[0, 5, 0] = 1.0
    outputs[0, 5, 1:] = CODER.encode_single(torch.tensor([[4.0, 6.0, 14.0, 18.0]]), anchors(pictures)[5:6])
    drawn = DrawnBoxes(anchors)(outputs, pictures)
    expected = torch.full((32, 32), 0.3)
    expected[4:14, 6:18] = float(torch.tensor(1.0).sigmoid())
    expected[5:13, 7:17] = 0.3
    assert torch.allclose(drawn[0, 0], expected) and torch.allclose(drawn[1], torch.tensor(0.3))


def test_probabilities_are_even_pictures() -> None:
    seen = probability_pictures(torch.tensor([[0.0], [20.0]]), torch.zeros(2, 1, 4, 4))
    assert seen.shape == (2, 1, 4, 4) and (seen[0] == 0.5).all() and (seen[1] > 0.99).all()


def test_cubes_with_and_without_nodule_are_shown(tmp_path: Path) -> None:
    points = CandidatePoints([BlobProposer()])
    data = CubeData(write_crops(tmp_path / "set"), points, size=16, side_mm=11.2)
    batch = shown_cubes(data.val, 2)
    assert batch["label"].shape == (2, 1, 1, 16, 16) and batch["image"].shape == (2, 1, 16, 16)
    assert batch["image"][:, 0, 0, 0].tolist() == [1.0, -1.0]
