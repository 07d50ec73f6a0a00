"""A report for every bundle, by the script: a tiny trained model, images drawn from it, all sections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bundles.case import BundleCase
from tests.bundles.conftest import Trained
from tests.bundles.runs import Run, forked

LABELLED = ("pix2pix_covid", "patchgan_cardiac", "lung_two_stage")  # the last draws its labels itself
SMALL = ("--iterations", "2", "--seeds", "1", "--resamples", "10", "--device", "cpu")


@pytest.mark.slow
def test_a_trained_bundle_gets_a_report(
    case: BundleCase, data: Path, trained: Trained, tmp_path: Path
) -> None:
    """Half of the conditions are held-out patients'; an untrained generator copies nobody."""
    model = trained[0] / "models" / "model.pt"
    done = report(case, data, model, tmp_path / "report.html", *SMALL, "--generate", "12")
    assert done.code in (0, 3, 4), done.err
    found = json.loads((tmp_path / "trust.json").read_text())
    assert found["bundle"] == case.name and found["gate"]["open"] == (done.code == 0)
    assert list(found["sections"]) == ["fidelity", "faithfulness", "utility", "privacy"]
    assert found["sets"]["synthetic"]["images"] == 12
    assert found["sets"]["synthetic"]["labelled"] == (case.name in LABELLED)
    assert min(found["sets"][name]["patients"] for name in ("real", "heldout")) >= 1
    names = [figure["name"] for figure in found["sections"]["faithfulness"]["figures"]]
    assert ("condition_faithfulness" in names) == (case.name in LABELLED)
    words = (tmp_path / "report.html").read_text()
    assert case.name in words and "<script" not in words
    if case.name == LABELLED[0]:
        again = report(case, data, model, tmp_path / "again" / "report.html", *SMALL, "--generate", "12")
        assert again.code == done.code
        other = json.loads((tmp_path / "again" / "trust.json").read_text())
        page = (tmp_path / "again" / "report.html").read_text()
        assert page.replace(other["commit"], "") == words.replace(found["commit"], "")


@pytest.mark.slow
def test_a_bundle_without_model_is_one_line(case: BundleCase, data: Path, tmp_path: Path) -> None:
    done = report(case, data, tmp_path / "none.pt", tmp_path / "report.html", "--generate", "4")
    assert done.code == 2
    assert "no trained model yet" in done.err.splitlines()[-1] and "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def report(case: BundleCase, data: Path, model: Path, page: Path, *words: str) -> Run:
    """The script, from another folder."""
    line = ["--bundle", str(case.root), "--real", str(data), "--ckpt_path", str(model), "--output", str(page)]
    return forked([*line, *words], page.parent.with_name("log"), page.parents[1], script="trust_report")
