"""The baselines' configs: trained, resumed and loaded as methods of Table I."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundles.lung_two_stage.baselines.candidate_classifier import BlobProposer, ClassifiedCandidates
from bundles.lung_two_stage.baselines.detector import DetectedNodules
from bundles.lung_two_stage.segmentation.inference import load_method
from common.metrics.detection import LEAST_SCORE
from tests.bundles.lung_two_stage.baselines.made import scan_of, write_crops
from tests.bundles.lung_two_stage.case import CASE
from tests.bundles.runs import Run, fingerprints, forked

TINY: dict[str, Any] = {"max_epochs": 1, "batch_size": 2, "device": "cpu", "amp": "false", "val_interval": 1}
CUBES: dict[str, Any] = {"image_size": 16, "side_mm": 11.2, "network_def#widths": [4, 8]}
DETECTOR: dict[str, Any] = {
    "image_size": 32,
    "network_def#channels": [8, 8, 8, 8],
    "network_def#width": 8,
}


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_crops(tmp_path_factory.mktemp("data") / "crops", patients=8)


def train(names: list[str], data: Path, folder: Path, **more: Any) -> Run:
    settings = {**TINY, "dataset_dir": data, "output_dir": folder, **more}
    return forked(CASE.arguments("training", names, **settings), folder.with_name(folder.name + "_log"))


def test_detector_then_false_positive_reduction(crops: Path, tmp_path: Path) -> None:
    run = train(["train_segmentation", "detector"], crops, tmp_path / "detector", **DETECTOR)
    assert run.code == 0, run.err
    model = tmp_path / "detector" / "models" / "model.pt"
    detector = load_method("pyramid", model)
    assert isinstance(detector, DetectedNodules) and detector.name == "pyramid"

    run = train(
        ["train_segmentation", "cnn_vgg", "false_positives"],
        crops,
        tmp_path / "second",
        detector=model,
        **CUBES,
    )
    assert run.code == 0, run.err
    both = load_method("both", tmp_path / "second" / "models" / "model.pt")
    assert isinstance(both, ClassifiedCandidates) and isinstance(both.proposer, DetectedNodules)
    assert both.shape.depth == 1 and both.shape.size == 16
    scan = scan_of([(0, 20, 24, 5)])
    assert len(both.candidates(scan)) <= len(detector.candidates(scan)) and both.masks(scan) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "settings"),
    [(["train_segmentation", "detector"], DETECTOR), (["train_segmentation", "cnn_vgg"], CUBES)],
)
def test_resumed_is_the_same_as_uninterrupted(
    names: list[str], settings: dict[str, Any], crops: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(names, crops, whole, **settings, max_epochs=3, decay_from=1.0).code == 0
    assert train(names, crops, parts, **settings, max_epochs=2, decay_from=1.0).code == 0
    resumed = train(names, crops, parts, **settings, max_epochs=3, decay_from=1.0, resume="true")
    assert resumed.code == 0, resumed.err
    same = [
        {Path(path).name: value for path, value in fingerprints(folder / "models").items()}
        for folder in (whole, parts)
    ]
    assert same[0]["model.pt"] == same[1]["model.pt"] and same[0]["model.json"] == same[1]["model.json"]
    if "cnn_vgg" in names:
        method = load_method("CNN + VGG", whole / "models" / "model.pt")
        assert isinstance(method, ClassifiedCandidates) and isinstance(method.proposer, BlobProposer)
        result = method.candidates(scan_of([(0, 20, 24, 5)]))
        assert all(LEAST_SCORE <= candidate.score <= 1 for candidate in result)
        facts = json.loads((whole / "models" / "model.json").read_text())
        assert facts["cube"]["side_mm"] == 11.2 and 0 <= facts["metrics"]["roc_area"] <= 1
