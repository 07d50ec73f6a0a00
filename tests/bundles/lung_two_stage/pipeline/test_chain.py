"""Stages run in order, are skipped when current, go on when begun and begin anew when out of date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bundles.lung_two_stage.pipeline import chain as module
from bundles.lung_two_stage.pipeline.chain import Chain
from common.errors import UserError

STAGES: dict[str, dict[str, Any]] = {
    "one": {"run": "training", "config": "one", "writes": "one"},
    "two": {"run": "extraction", "config": "two", "writes": "two", "after": ["one"]},
    "apart": {"run": "training", "config": "two", "writes": "apart"},
}


class Commands:
    """Stands for the processes: each writes a file into its stage's folder, beside what it finds there."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir, self.ran, self.fails = work_dir, list[str](), ""

    def __call__(self, command: Sequence[str], log: Path, inherited: Sequence[int] = ()) -> int:
        name = log.stem
        log.parent.mkdir(parents=True, exist_ok=True)
        self.ran.append(name)
        folder = self.work_dir / name
        folder.mkdir(exist_ok=True)
        (folder / f"file{len(list(folder.iterdir()))}").write_text(" ".join(command))
        log.write_text("error: no space\n" if name == self.fails else "fine\n")
        return int(name == self.fails)

    def take(self) -> list[str]:
        """The stages that have run since the last call."""
        taken, self.ran = self.ran, []
        return taken


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands(tmp_path / "work")
    monkeypatch.setattr(module, "run_logged", made)
    return made


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text("work_dir: x\nseed: 0\n")
    return folder


def chain(commands: Commands, configs: Path, **shared: Any) -> Chain:
    made = Chain(STAGES, commands.work_dir, shared)
    made.configs = configs
    return made


def test_what_is_current_is_skipped(commands: Commands, configs: Path) -> None:
    assert chain(commands, configs).run() == ["one", "two", "apart"]
    assert chain(commands, configs).run() == [] and commands.take() == ["one", "two", "apart"]


def test_a_changed_config_setting_or_output_runs_again_what_depends_on_it(
    commands: Commands, configs: Path
) -> None:
    chain(commands, configs).run()
    (configs / "one.yaml").write_text("work_dir: x\nseed: 0\nmore: 1\n")
    assert chain(commands, configs).run() == ["one", "two"]
    assert chain(commands, configs, seed=1).run() == ["one", "two", "apart"]
    (commands.work_dir / "two" / "file0").unlink()
    assert chain(commands, configs, seed=1).run() == ["two"]


def test_a_failed_stage_says_why_and_goes_on(commands: Commands, configs: Path) -> None:
    commands.fails = "two"
    with pytest.raises(UserError, match=r"stage two: no space \(log: .*two\.log\)"):
        chain(commands, configs).run()
    commands.fails = ""
    assert chain(commands, configs).run() == ["two", "apart"]
    names = sorted(path.name for path in (commands.work_dir / "two").iterdir())
    assert names == ["file0", "file1"]  # what the first try had written was there for the second


def test_a_stage_out_of_date_begins_anew(commands: Commands, configs: Path) -> None:
    chain(commands, configs).run()
    chain(commands, configs, seed=1).run()
    assert [path.name for path in (commands.work_dir / "one").iterdir()] == ["file0"]


def test_folders_of_others_are_left_alone(commands: Commands, configs: Path) -> None:
    (commands.work_dir / "one").mkdir(parents=True)
    (commands.work_dir / "one" / "mine").write_text("precious")
    with pytest.raises(UserError, match="was not written by the chain"):
        chain(commands, configs).run()
    assert (commands.work_dir / "one" / "mine").read_text() == "precious" and not commands.take()


def test_stages_that_come_before_are_run_first(commands: Commands, configs: Path) -> None:
    before = {"one": STAGES["one"]}
    made = Chain({"two": STAGES["two"]}, commands.work_dir, before=before)
    made.configs = configs
    assert made.run() == ["one", "two"]
