"""Reading what a trial's process left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.handlers.divergence import ADVICE
from common.tuning.trial import TrainingProcess, failure, score, tidy


def test_command_names_configs_folder_and_overrides() -> None:
    one, two = Path("/a/train.yaml"), Path("/a/best.yaml")
    command = TrainingProcess([one, two]).command(
        Path("/out/trial_003"), {"learning_rate": 2e-05, "n#k": "4"}
    )
    tail = command[command.index("training") + 1 :]
    assert tail[:2] == ["--config_file", "['/a/train.yaml', '/a/best.yaml']"]
    assert tail[2:6] == ["--output_dir", "/out/trial_003", "--resume", "true"]
    assert tail[6:] == ["--learning_rate", "2e-05", "--n#k", "4"]
    alone = TrainingProcess([one]).command(Path("/out"), {})
    assert alone[alone.index("--config_file") + 1] == "/a/train.yaml"


@pytest.mark.parametrize(
    ("log", "reason", "diverged"),
    [
        (
            f"error: old\nINFO x\nerror: iteration 7: G_l1 is nan; {ADVICE}\n",
            f"iteration 7: G_l1 is nan; {ADVICE}",
            1,
        ),
        ("error: x.png: truncated\nmore\n", "x.png: truncated", 0),
        ("nothing told", "the training ended with exit code -9, see", 0),
    ],
)
def test_failures_give_the_last_error_line(tmp_path: Path, log: str, reason: str, diverged: int) -> None:
    path = tmp_path / "training.log"
    path.write_text(log)
    outcome = failure(path, -9)
    assert outcome.score is None and outcome.reason.startswith(reason) and outcome.diverged == bool(diverged)


def test_score_stands_beside_the_best_checkpoint(tmp_path: Path) -> None:
    record = tmp_path / "model.json"
    assert "before its first validation" in score(record).reason
    record.write_text(json.dumps({"score": 12.5}))
    assert score(record).score == 12.5
    record.write_text(json.dumps({"score": None}))
    assert score(record).score is None and score(record).diverged
    record.write_text("{")
    assert "no score can be read" in score(record).reason and not score(record).diverged


def test_resume_files_of_an_ended_trial_go(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for name in ("resume.pt", "resume_previous.pt", "model.pt", "model.json"):
        (models / name).touch()
    tidy(tmp_path)
    tidy(tmp_path / "absent")
    assert sorted(path.name for path in models.iterdir()) == ["model.json", "model.pt"]
