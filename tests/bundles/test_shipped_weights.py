"""Weights in ``bundles/NAME/models``: what they are, and what works with them in a fresh clone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.files import read_json
from common.inference.checkpoint import load_weights, network_for
from tests.bundles.case import BundleCase, override_words
from tests.bundles.cases import CASES
from tests.bundles.runs import ROOT, Run, fingerprints, forked

SHIPPED = sorted(ROOT.glob("bundles/*/models/*.pt"))


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_they_are_small_and_name_no_patients(weights: Path) -> None:
    state = torch.load(weights, map_location="cpu", weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    assert weights.stat().st_size <= 25_000_000
    facts = read_json(weights.with_suffix(".json"))
    assert "splits" not in facts and facts["patients"]["train"] > 1
    card = (weights.parent / "README.md").read_text()
    assert all(word in card for word in (weights.name, "Data", "Patients", "Command", "Trust report"))
    network = load_weights(network_for(weights, otherwise=nn.Identity()), weights, "")
    assert all(value.dtype is torch.float32 for value in network.parameters())
    if "non-commercial" in card:
        for name in ("configs/metadata.json", "docs/data_license.txt"):
            assert "non-commercial" in (weights.parents[1] / name).read_text()


def git(folder: Path, *words: str) -> str:
    """What git prints."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone: the files that git tracks, as they are now, committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    folder = tmp_path / "clone"
    for name in filter(None, git(ROOT, "ls-files", "-z").split("\0")):
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        git(folder, *words)
    return folder


def run(clone: Path, case: BundleCase, run_id: str, config: str, **overrides: Any) -> Run:
    """A run in the clone, with its own code."""
    parts = ["run", run_id, "--config_file", f"bundles/{case.name}/configs/{config}.yaml"]
    log = clone.with_name(f"log_{run_id}")
    return forked([*parts, *override_words(overrides)], log, cwd=clone, installed=False)


@pytest.mark.slow
def test_a_fresh_clone_draws_and_evaluates(case: BundleCase, data: Path, clone: Path) -> None:
    """Or says in one line that there are no weights yet."""
    model = clone / "bundles" / case.name / "models" / "model.pt"
    given = {"output_dir": clone.with_name("out"), "device": "cpu", **case.inference(data)}
    drawn = run(clone, case, "inference", "inference", **given)
    beside = {**case.beside(data), **case.evaluating(data), "dataset_dir": data}
    evaluated = run(clone, case, "evaluating", case.evaluate, **beside)
    if not model.is_file():
        assert "no trained model yet" in drawn.error and "no trained model yet" in evaluated.error
        return
    for done in (drawn, evaluated):
        assert done.code == 0 and f"{model}: shipped weights" in done.out, done.err
    again = run(clone, case, "inference", "inference", **{**given, "output_dir": clone.with_name("again")})
    assert again.code == 0
    images = [list(fingerprints(clone.with_name(name)).values()) for name in ("out", "again")]
    assert images[0] and images[0] == images[1]
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_a_trained_model_comes_first_and_git_sees_nothing_of_it(
    case: BundleCase, data: Path, clone: Path
) -> None:
    """As `make demo`: everything goes where the configs write by default."""
    bundle = clone / "bundles" / case.name
    settings = {**case.tiny, **case.beside(data), "dataset_dir": data, "max_epochs": 1, "val_interval": 1}
    trained = run(clone, case, "training", case.train, **settings)
    assert trained.code == 0, trained.err
    assert run(clone, case, "evaluating", case.evaluate, **case.evaluating(data), dataset_dir=data).code == 0
    drawn = run(clone, case, "inference", "inference", **case.inference(data))
    assert f"{bundle / 'run' / 'models' / 'model.pt'}: trained model" in drawn.out, drawn.err
    assert (bundle / "run" / "eval" / "metrics.json").is_file() and list((bundle / "synthetic").iterdir())
    assert git(clone, "status", "--porcelain") == ""
    # As versions before trained: the models in models/, the rest beside it.
    shutil.rmtree(bundle / "models", ignore_errors=True)
    for part in ("models", "logs", "eval"):
        (bundle / "run" / part).rename(bundle / part)
    drawn = run(clone, case, "inference", "inference", **case.inference(data))
    assert f"{bundle / 'models' / 'model.pt'}: trained model" in drawn.out, drawn.err
    longer = {**settings, "max_epochs": 2, "resume": True, "output_dir": bundle}
    assert "resumed after iteration 10" in run(clone, case, "training", case.train, **longer).out
