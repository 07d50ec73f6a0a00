"""The search as the command line starts it, with a made training."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.errors import UserError
from common.tuning import command
from common.tuning.command import Settings, tune
from common.tuning.trial import Outcome

pytest.importorskip("optuna")


class Training:
    """Stands in for `TrainingProcess`: the score is the learning rate; it leaves what a training leaves."""

    def __init__(self, config_files: list[Path], inherited: list[int]) -> None:
        assert all(path.is_absolute() and path.is_file() for path in config_files)
        os.fstat(inherited[0])

    def __call__(self, folder: Path, overrides: Mapping[str, Any]) -> Outcome:
        (folder / "models").mkdir(parents=True)
        for name in ("resume.pt", "model.pt"):
            (folder / "models" / name).touch()
        return Outcome(float(overrides["learning_rate"]))


class Failing(Training):
    """Diverges, always."""

    def __call__(self, folder: Path, overrides: Mapping[str, Any]) -> Outcome:
        return Outcome(None, "iteration 3: loss is nan", diverged=True)


class Terminated(Training):
    """Gets a SIGTERM while it trains."""

    def __call__(self, folder: Path, overrides: Mapping[str, Any]) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal should have ended the trial")


def test_search_leaves_an_overlay_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "TrainingProcess", Training)
    tune(Settings("pix2pix_covid", 3, output_dir=tmp_path, overrides={"batch_size": "4"}))
    tuned = yaml.safe_load((tmp_path / "tuned.yaml").read_text())
    assert list(tuned) == ["learning_rate", "lambda_l1", "weight_decay"]  # the batch size was given
    assert "--batch_size 4" in (tmp_path / "tuned.yaml").read_text()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["trial", "score", *tuned]
    assert len(shown) == 5 and shown[4] == f"best values: {tmp_path / 'tuned.yaml'}"
    best = next(line.split() for line in shown if line.endswith("* best"))
    assert float(best[2]) == tuned["learning_rate"] == min(float(line.split()[2]) for line in shown[1:4])
    assert not list(tmp_path.glob("trial_*/models/resume.pt"))
    assert len(list(tmp_path.glob("trial_*/models/model.pt"))) == 3


def test_without_any_score_there_is_no_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "TrainingProcess", Failing)
    with pytest.raises(UserError, match="no trial gave a score"):
        tune(Settings("pix2pix_covid", 2, output_dir=tmp_path))
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[1:]] == ["diverged"] * 2
    assert not (tmp_path / "tuned.yaml").exists()


def test_terminated_search_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "TrainingProcess", Terminated)
    with pytest.raises(UserError, match="stopped; the same command goes on"):
        tune(Settings("pix2pix_covid", 2, output_dir=tmp_path))
    assert signal.getsignal(signal.SIGTERM) is earlier
    monkeypatch.setattr(command, "TrainingProcess", Training)
    tune(Settings("pix2pix_covid", 2, output_dir=tmp_path))
    assert sorted(path.name for path in tmp_path.glob("trial_*")) == ["trial_000", "trial_001"]


def test_missing_bundle_and_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such bundle"):
        tune(Settings("pix2pix_covit", 1, output_dir=tmp_path))
    with pytest.raises(UserError, match=r"other\.yaml: no such config"):
        tune(Settings("pix2pix_covid", 1, output_dir=tmp_path, config_file=[tmp_path / "other.yaml"]))
    assert list(tmp_path.iterdir()) == []
