from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.rivals.classifying import BlobProposer, CandidatePoints
from bundles.lung_two_stage.rivals.cube_data import CubeData, _labelled, hits_nodule
from bundles.lung_two_stage.rivals.cubes import CubeShape
from common.data.nodule_scan import Nodule
from common.data.sampling import Draw
from common.errors import UserError
from tests.bundles.lung_two_stage.rivals.made import scan_of, write_crops


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CubeData:
    folder = write_crops(tmp_path_factory.mktemp("crops"))
    return CubeData(folder, CandidatePoints([BlobProposer()]), size=16, side_mm=11.2, depth=4, most=5)


def test_hits_are_those_of_luna() -> None:
    scan = scan_of([(0, 20, 24, 5)])
    (nodule,) = scan.nodules
    radius = nodule.diameter_mm / 2
    points = np.array([[0, 20, 24], [0, 20, 23.9 + radius], [0, 20, 24.1 + radius], [0, 24, 24]])
    assert hits_nodule(scan, points).tolist() == [True, True, False, True]
    assert not hits_nodule(scan_of([]), points).any()


def test_training_is_balanced_and_evaluation_is_complete(data: CubeData) -> None:
    train, test = data.train, data.test
    labels = [float(train[k]["label"]) for k in range(len(train))]
    assert labels == [1.0, 0.0] * len(train.positive) and len(train.positive) >= 4
    assert len(test) == len(test.labels) and test.labels.sum() >= 1
    items = [test[k] for k in range(len(test))]
    assert [bool(item["label"]) for item in items] == test.labels.tolist()
    assert items[0]["image"].shape == (1, 1, 16, 16)  # pictures are one slice deep
    assert items[0]["image"].dtype == torch.float32 and abs(float(items[0]["image"].mean())) <= 1


def test_a_visit_depends_on_epoch_and_sample_alone(data: CubeData) -> None:
    first, again, later = (data.train[Draw(epoch, 3)]["image"] for epoch in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, later)


def test_patients_and_metadata(data: CubeData) -> None:
    splits = data.metadata()["splits"]
    assert sum(len(part) for part in splits.values()) == 6
    assert data.metadata()["cube"] == {"size": 16, "side_mm": 11.2, "depth": 1, "step_mm": 2.0}
    assert "with, " in data.summary()


def test_an_empty_nodule_set_is_one_line(tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "set", empty=True)
    with pytest.raises(UserError, match="training scans hold no nodules"):
        CubeData(folder, CandidatePoints([BlobProposer()]), size=16)


def test_excluded_findings_are_neither_with_nor_without_a_nodule() -> None:
    """A candidate in a nodule, one in a finding, one in both, one in none; all others may be drawn."""
    scan = scan_of([(0, 20, 24, 5)])
    finding = Nodule((0.0, 46.0, 44.0), (0.0, 46.0, 44.0), 8.0)
    beside = Nodule((0.0, 24.0, 24.0), (0.0, 24.0, 24.0), 4.0)
    points = np.array([[0, 20, 24], [0, 46, 44], [0, 23, 24], [0, 50, 10]])
    assert hits_nodule(scan, points, [finding]).tolist() == [False, True, False, False]
    for excluded, labels in (((), [1, 0, 1, 0]), ((finding, beside), [1, 1, 0])):
        known = replace(scan, excluded=excluded)
        cubes, found = _labelled(known, points, CubeShape(16, 16.0, 1), 0, False, 9, np.random.default_rng(0))
        assert found.tolist() == labels and len(cubes) == len(labels)
