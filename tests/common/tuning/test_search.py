"""The search with a made training: a function with a known minimum instead of a process."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from common.errors import UserError
from common.tuning.search import RECORD, Search
from common.tuning.space import Choices, Range, SearchSpace
from common.tuning.trial import Outcome

optuna = pytest.importorskip("optuna")
SPACE = SearchSpace({"rate": Range(1e-5, 1e-1, log=True), "size": Choices((1, 2, 4))}, {"max_epochs": 3})
START = {"rate": 0.01, "size": 4}


class Bowl:
    """A training whose score is lowest, 0, at rate 1e-3 and size 2."""

    def __init__(self, interrupted_at: int | None = None, bad: Mapping[int, Outcome] | None = None) -> None:
        self.interrupted_at, self.bad = interrupted_at, dict(bad or {})
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, folder: Path, overrides: Mapping[str, Any]) -> Outcome:
        number = len(self.calls)
        self.calls.append((folder.name, dict(overrides)))
        (folder / "models").mkdir(parents=True, exist_ok=True)
        if number == self.interrupted_at:
            raise KeyboardInterrupt
        distance = (math.log10(overrides["rate"]) + 3) ** 2 + 0.1 * (overrides["size"] - 2) ** 2
        return self.bad.get(number, Outcome(distance))


def search(folder: Path, train: Bowl, **changes: Any) -> Search:
    return Search(folder, **{"space": SPACE, "train": train, "start": START, "overrides": {}, **changes})


def test_first_trial_is_the_configs_own_and_the_search_improves_on_it(tmp_path: Path) -> None:
    train = Bowl()
    found = search(tmp_path, train, overrides={"image_size": "64"})
    found.run(10)
    assert train.calls[0] == ("trial_000", {"max_epochs": 3, "image_size": "64", "rate": 0.01, "size": 4})
    assert [name for name, _ in train.calls] == [f"trial_{number:03d}" for number in range(10)]
    best = found.best()
    assert best is not None and best.value is not None
    assert best.value < 0.5 < found.ended()[0].value == pytest.approx(1.4)
    assert all(value == float(f"{value:.3g}") for value in (call["rate"] for _, call in train.calls))


def test_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    straight, killed, resumed = Bowl(), Bowl(interrupted_at=5), Bowl()
    search(tmp_path / "straight", straight, seed=5).run(7)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", killed, seed=5).run(7)
    search(tmp_path / "killed", resumed, seed=5).run(7)
    assert killed.calls[:5] + resumed.calls == straight.calls
    assert killed.calls[5] == resumed.calls[0]
    other = Bowl()
    search(tmp_path / "other", other, seed=6).run(3)
    assert other.calls[0][1]["rate"] == 0.01 and other.calls[1] != straight.calls[1]


def test_finished_search_runs_nothing_and_more_trials_go_on(tmp_path: Path) -> None:
    search(tmp_path, Bowl()).run(2)
    again = Bowl()
    search(tmp_path, again).run(2)
    assert again.calls == []
    search(tmp_path, again).run(3)
    assert [name for name, _ in again.calls] == ["trial_002"]


def test_trial_killed_while_its_values_were_drawn_is_drawn_again(tmp_path: Path) -> None:
    straight, resumed = Bowl(), Bowl()
    search(tmp_path / "straight", straight).run(2)
    found = search(tmp_path / "killed", resumed)
    found.run(1)
    found.study.ask()
    search(tmp_path / "killed", resumed).run(2)
    assert [values for _, values in resumed.calls] == [values for _, values in straight.calls]
    assert [name for name, _ in resumed.calls] == ["trial_000", "trial_002"]


def test_diverged_and_failed_trials_are_recorded_and_passed_over(tmp_path: Path) -> None:
    bad = {0: Outcome(None, "NaN", diverged=True), 2: Outcome(None, "killed")}
    found = search(tmp_path, Bowl(bad=bad))
    told: list[int] = []
    found.run(4, lambda trial: told.append(trial.number))
    assert [trial.state.name for trial in found.ended()] == ["PRUNED", "COMPLETE", "FAIL", "COMPLETE"]
    assert told == [0, 1, 2, 3]
    best = found.best()
    assert best is not None and best.number in (1, 3)


def test_error_in_the_first_trial_ends_the_search_and_a_mended_one_starts_again(tmp_path: Path) -> None:
    typo = Bowl(bad={0: Outcome(None, "config key 'lamda' is read by nothing")})
    with pytest.raises(UserError, match="the first trial failed: config key 'lamda'"):
        search(tmp_path, typo, overrides={"lamda": "3"}).run(2)
    (tmp_path / "trial_000" / "models").rmdir()  # refused before anything was trained
    mended = Bowl()
    search(tmp_path, mended, overrides={"lambda": "3"}).run(2)
    assert mended.calls[0] == ("trial_000", {"max_epochs": 3, "lambda": "3", **START})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"overrides": {"image_size": "64"}}, "image_size was unset, is 64"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"recipe": "other.yaml"}, "config was , is other.yaml"),
        ({"space": SPACE.fixed({"size": 2})}, "range of size was"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    search(tmp_path, Bowl()).run(1)
    with pytest.raises(UserError, match=f"another search is there .*{told}.* --output_dir"):
        search(tmp_path, Bowl(), **changes)


def test_unreadable_record_is_one_line(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(b"no database " * 1000)
    with pytest.raises(UserError, match="not a readable search") as raised:
        search(tmp_path, Bowl())
    assert "\n" not in str(raised.value)
    assert (tmp_path / RECORD).stat().st_size == 12_000


def test_without_optuna_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="pip install optuna"):
        search(tmp_path / "new", Bowl())
    assert not (tmp_path / "new").exists()
