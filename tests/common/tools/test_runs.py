"""Runs as processes of their own, and a sweep's commands, record and table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import write_json
from common.handlers.monitors import ADVICE
from common.tools import runs as module
from common.tools.runs import (
    Outcome,
    Sweep,
    bundle_command,
    failure,
    read_score,
    run_logged,
    run_sweep,
    sweep_table,
    train,
)


def metrics(value: float) -> dict:
    """What an evaluation writes, cut down."""
    baselines = {"mean_image": {"mean": value * 2}, "real_real": {"mean": value / 2}}
    return {"metrics": {"fid_x": {"mean": value, "interval": [0, 1], "n": 4, "baselines": baselines}}}


def tiny(folder: Path, *values: str, **overrides: str) -> Sweep:
    """A sweep over pix2pix_covid's seeds."""
    return Sweep("pix2pix_covid", "seed", values, folder, (), overrides)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that a sweep starts; evaluations leave metrics behind, as the real ones do."""
    started: list[list[str]] = []

    def pretend(command: list[str], log: Path, inherited: list[int]) -> int:
        started.append(command)
        if "evaluating" in command:
            write_json(log.parent / "eval" / "metrics.json", metrics(float(len(started))))
        return 0

    monkeypatch.setattr(module, "run_logged", pretend)
    return started


def test_every_value_is_trained_and_evaluated_in_its_own_folder(tmp_path: Path) -> None:
    sweep = tiny(tmp_path, "3", "a b", dataset_dir="D", max_epochs="2")
    training, evaluating = sweep.commands("a b")
    assert training[training.index("run") + 1] == "training"
    tail = training[training.index("--output_dir") :]
    assert tail == [
        *("--output_dir", str(tmp_path / "seed-a%20b"), "--resume", "true"),
        *("--dataset_dir", "D", "--max_epochs", "2", "--seed", "a b"),
    ]
    # max_epochs is none of the evaluation's settings
    assert evaluating[evaluating.index("--output_dir") + 2 :] == ["--dataset_dir", "D"]


def test_a_finished_run_is_kept_and_another_sweep_refused(tmp_path: Path, runs: list[list[str]]) -> None:
    rows = run_sweep(tiny(tmp_path, "1", "2"))
    assert [row["value"] for row in rows] == ["1", "2"] and len(runs) == 4
    run_sweep(tiny(tmp_path, "1", "2", "3"))
    assert len(runs) == 6  # the third alone
    with pytest.raises(UserError, match="holds a sweep with other settings"):
        run_sweep(tiny(tmp_path, "1", max_epochs="2"))


def test_a_failed_run_is_named_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(command: list[str], log: Path, inherited: list[int]) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("error: D: no such folder\n")
        return 1

    monkeypatch.setattr(module, "run_logged", fails)
    with pytest.raises(UserError, match=r"seed 7: D: no such folder \(log: .*seed-7/training.log\)"):
        run_sweep(tiny(tmp_path, "7", dataset_dir="D"))


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ((), {}, "give at least one"),
        (("1", "1"), {}, "each once"),
        (("1",), {"seed": "2"}, "--seed: set by the sweep"),
        (("1",), {"output_dir": "x"}, "--output_dir: set by the sweep"),
    ],
)
def test_senseless_sweeps_are_refused(values: tuple, overrides: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        tiny(tmp_path, *values, **overrides)


def test_table_shows_each_run_beside_its_baselines() -> None:
    table = sweep_table("labels", [{"value": "LV", **metrics(4.0)}, {"value": "all", **metrics(1.0)}])
    lines = table.splitlines()
    assert lines[0] == "model (baselines: mean_image, real_real)"
    assert lines[1].split() == ["labels", "fid_x"]
    assert lines[3].split() == ["LV", "4.000", "(8.000,", "2.000)"]
    assert lines[4].split() == ["all", "1.000", "(2.000,", "0.500)"]


def test_training_gets_configs_folder_and_overrides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], log: Path, inherited: list[int]) -> int:
        commands.append(command)
        log.write_text("error: D: no such folder\n")
        return len(inherited)

    monkeypatch.setattr("common.tools.runs.run_logged", run)
    files = [Path("/a/train.yaml"), Path("/a/best.yaml")]
    outcome = train(tmp_path, files, {"learning_rate": 2e-05, "n#k": "4"}, 7)
    assert outcome == Outcome(None, "D: no such folder")
    settings = ["--output_dir", str(tmp_path), "--resume", "true", "--learning_rate", "2e-05", "--n#k", "4"]
    assert commands[0][-8:] == settings


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


def test_score_is_read_beside_the_best_checkpoint(tmp_path: Path) -> None:
    record = tmp_path / "model.json"
    assert "before its first validation" in read_score(record).reason
    record.write_text(json.dumps({"score": 12.5}))
    assert read_score(record).score == 12.5
    record.write_text(json.dumps({"score": None}))
    assert read_score(record).score is None and read_score(record).diverged
    record.write_text("{")
    assert "cannot read the score" in read_score(record).reason and not read_score(record).diverged


def test_command_names_configs_and_settings() -> None:
    one, two = Path("/a/train.yaml"), Path("/a/best.yaml")
    command = bundle_command("training", [one, two], {"n#k": "4"})
    tail = ["run", "training", "--config_file", "['/a/train.yaml', '/a/best.yaml']", "--n#k", "4"]
    assert command[command.index("run") :] == tail
    alone = bundle_command("evaluating", [one], {})
    assert alone[alone.index("run") :] == ["run", "evaluating", "--config_file", "/a/train.yaml"]


def test_output_is_appended_to_the_log_and_the_code_returned(tmp_path: Path) -> None:
    log = tmp_path / "new" / "run.log"
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    assert [run_logged([sys.executable, "-c", program], log) for _ in range(2)] == [3, 3]
    assert sorted(log.read_text().split()) == ["err", "err", "out", "out"]
