"""Runs long enough to learn something, on phantoms as shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.files import read_json
from tests.bundles.case import BundleCase
from tests.bundles.runs import command, finished


@pytest.mark.slow
def test_the_shipped_training_beats_the_mean_image(case: BundleCase, tmp_path: Path) -> None:
    """The plain two commands, at 64 x 64 pixels, in a bundle folder without data: phantoms are made first."""
    if not case.short:
        pytest.skip("learns from what its other stages make: see its test_pipeline.py")
    before = {path.name for path in case.root.iterdir()}
    root = {"bundle_root": tmp_path / "root"}
    trained = finished(command(case.arguments("training", "train", **root, **case.short)), timeout=550)
    assert trained.code == 0, trained.err
    assert "PHANTOM DATA" in trained.out + trained.err
    evaluated = finished(command(case.arguments("evaluating", "evaluate", **root)))
    assert evaluated.code == 0, evaluated.err
    metrics = read_json(tmp_path / "root" / "run" / "eval" / "metrics.json")["metrics"]
    fid = metrics["fid_gridvgg"]  # of two or three phantoms: the interval would say nothing
    assert fid["mean"] < 0.6 * fid["baselines"]["mean_image"]["mean"]
    assert {path.name for path in case.root.iterdir()} == before
