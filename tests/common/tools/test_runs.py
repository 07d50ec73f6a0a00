"""A sweep's commands, its record and its table; the runs themselves are tested with the script."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import write_json
from common.tools import runs as module
from common.tools.runs import Sweep, run_sweep, sweep_table


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
