"""The search as the command line starts it, with a made training."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser

from common.config import check_config
from common.errors import UserError
from common.paths import repository_root
from common.tools import tune as command
from common.tools.runs import (
    Outcome,
)
from common.tools.tune import (
    RECORD,
    Search,
    SearchSettings,
    SearchSpace,
    read_space,
    rounded,
    tune,
    write_overlay,
)

optuna = pytest.importorskip("optuna")
Float, Int = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
Choices = optuna.distributions.CategoricalDistribution


def pretend(folder: Path, config_files: list[Path], overrides: Mapping[str, Any], lock: int) -> Outcome:
    """Stands in for a training: the score is the learning rate; it leaves the files of a training."""
    assert all(path.is_absolute() and path.is_file() for path in config_files)
    os.fstat(lock)
    (folder / "models").mkdir(parents=True)
    for name in ("resume.pt", "resume_previous.pt", "model.pt"):
        (folder / "models" / name).touch()
    return Outcome(float(overrides["learning_rate"]))


def diverge(*_: Any) -> Outcome:
    """A training that always diverges."""
    return Outcome(None, "iteration 3: loss is nan", diverged=True)


def terminate(*_: Any) -> Outcome:
    """A training during which the search gets a SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("the signal should have ended the trial")


def test_search_leaves_an_overlay_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "train", pretend)
    tune(SearchSettings("pix2pix_covid", 3, output_dir=tmp_path, overrides={"batch_size": "4"}))
    tuned = yaml.safe_load((tmp_path / "tuned.yaml").read_text())
    assert list(tuned) == ["learning_rate", "lambda_l1", "weight_decay"]  # the batch size was given
    assert "--batch_size 4" in (tmp_path / "tuned.yaml").read_text()
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["trial", "score", *tuned]
    assert len(shown) == 6 and shown[5] == f"best values: {tmp_path / 'tuned.yaml'}"
    best = next(line.split() for line in shown if line.endswith("* best"))
    assert float(best[2]) == tuned["learning_rate"] == min(float(line.split()[2]) for line in shown[2:5])
    assert not list(tmp_path.glob("trial_*/models/resume*.pt"))
    assert len(list(tmp_path.glob("trial_*/models/model.pt"))) == 3


def test_without_any_score_there_is_no_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "train", diverge)
    with pytest.raises(UserError, match="no trial gave a score"):
        tune(SearchSettings("pix2pix_covid", 2, output_dir=tmp_path))
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()[2:]] == ["diverged"] * 2
    assert not (tmp_path / "tuned.yaml").exists()


def test_terminated_search_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(command, "train", terminate)
    with pytest.raises(UserError, match="stopped; the same command continues"):
        tune(SearchSettings("pix2pix_covid", 2, output_dir=tmp_path))
    assert signal.getsignal(signal.SIGTERM) is earlier
    monkeypatch.setattr(command, "train", pretend)
    tune(SearchSettings("pix2pix_covid", 2, output_dir=tmp_path))
    assert sorted(path.name for path in tmp_path.glob("trial_*")) == ["trial_000", "trial_001"]


def test_missing_bundle_and_config_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such bundle"):
        tune(SearchSettings("pix2pix_covit", 1, output_dir=tmp_path))
    with pytest.raises(UserError, match=r"other\.yaml: no such config"):
        tune(SearchSettings("pix2pix_covid", 1, output_dir=tmp_path, config_file=[tmp_path / "other.yaml"]))
    assert list(tmp_path.iterdir()) == []


SPACE = SearchSpace({"rate": Float(1e-5, 1e-1, log=True), "size": Choices((1, 2, 4))}, {"max_epochs": 3})
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
    assert best is not None and best.score is not None
    assert best.score < 0.5 < (found.ended()[0].score or 0) == pytest.approx(1.4)
    assert all(value == float(f"{value:.3g}") for value in (call["rate"] for _, call in train.calls))


def test_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    straight, killed, resumed = Bowl(), Bowl(interrupted_at=5), Bowl()
    search(tmp_path / "straight", straight, seed=5).run(7)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", killed, seed=5).run(7)
    search(tmp_path / "killed", resumed, seed=5).run(7)
    assert killed.calls[:5] + resumed.calls == straight.calls
    assert killed.calls[5] == resumed.calls[0]
    again = Bowl()
    search(tmp_path / "killed", again, seed=5).run(7)
    assert not again.calls  # finished; more trials go on
    search(tmp_path / "killed", again, seed=5).run(8)
    assert [name for name, _ in again.calls] == ["trial_007"]
    other = Bowl()
    search(tmp_path / "other", other, seed=6).run(3)
    assert other.calls[0][1]["rate"] == 0.01 and other.calls[1] != straight.calls[1]


def test_diverged_and_failed_trials_are_recorded_and_passed_over(tmp_path: Path) -> None:
    bad = {0: Outcome(None, "NaN", diverged=True), 2: Outcome(None, "killed")}
    found = search(tmp_path, Bowl(bad=bad))
    done: list[int] = []
    found.run(4, lambda trial: done.append(trial.number))
    assert [trial.state for trial in found.ended()] == ["diverged", "complete", "failed", "complete"]
    assert done == [0, 1, 2, 3]
    best = found.best()
    assert best is not None and best.number in (1, 3)


def test_error_in_the_first_trial_ends_the_search_and_a_mended_one_starts_again(tmp_path: Path) -> None:
    typo = Bowl(bad={0: Outcome(None, "unknown config key 'lamda'")})
    with pytest.raises(UserError, match="the first trial failed: unknown config key 'lamda'"):
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
        ({"space": SPACE.without({"size": 2})}, "range of size was"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    search(tmp_path, Bowl()).run(1)
    with pytest.raises(UserError, match=f"another search is there .*{told}.* --output_dir"):
        search(tmp_path, Bowl(), **changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [("no JSON", "not valid JSON"), ("[1]", "not the record of a search"), (None, "missing")],
)
def test_unusable_record_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    (tmp_path / "trial_000" / "models").mkdir(parents=True)
    if text is not None:
        (tmp_path / RECORD).write_text(text)
    with pytest.raises(UserError, match=rf"search\.json: {message}"):
        search(tmp_path, Bowl())
    assert not (tmp_path / RECORD).exists() or (tmp_path / RECORD).read_text() == text


def test_without_optuna_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match="pip install optuna"):
        search(tmp_path / "new", Bowl())
    assert not (tmp_path / "new").exists()


SHIPPED = sorted(repository_root().glob("bundles/*/search.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "search.yaml"
    path.write_text(text)
    return path


def test_ranges_choices_and_shared_settings_are_read(tmp_path: Path) -> None:
    text = "parameters:\n  rate: {low: 1.0e-4, high: 1.0e-2, log: true}\n  size: {choices: [1, 4]}\n"
    space = read_space(written(tmp_path, text + "  depth: {low: 2, high: 5}\ntrial: {max_epochs: 3}\n"))
    parameters = {"rate": Float(1e-4, 1e-2, log=True), "size": Choices((1, 4)), "depth": Int(2, 5)}
    assert space == SearchSpace(parameters, {"max_epochs": 3})


def test_first_trial_takes_the_configs_values_inside_the_space() -> None:
    one = Float(0.1, 1.0)
    space = SearchSpace({"a": one, "b": one, "c": Choices((1, 2)), "d": Int(0, 9)}, {})
    assert space.values_of({"a": 0.2, "b": 3.0, "c": 2, "d": True, "e": 5}) == {"a": 0.2, "c": 2}


def test_keys_set_by_the_user_are_not_searched() -> None:
    space = SearchSpace({"a": Float(0, 1), "b": Float(0, 1)}, {"max_epochs": 3})
    assert list(space.without({"a": "0.5"}).parameters) == ["b"]
    with pytest.raises(UserError, match="a, b are set on the command line"):
        space.without({"a": "0.5", "b": "0.1"})


def test_numbers_are_rounded_to_three_digits_within_their_range() -> None:
    distribution = Float(0, 98.76)
    values = [rounded(value, distribution) for value in (0.00012345, 12.3456, 98.7599, 7, "word")]
    assert values == [0.000123, 12.3, 98.76, 7, "word"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {a: {low: 1, high: 2}}\nextra: 1", "unknown key 'extra'"),
        ("trial: {a: 1}", "needs parameters"),
        ("- a", "needs parameters"),
        (None, "cannot be read"),
        ("parameters: [", "not valid YAML"),
        ("parameters: {a: {low: 1e-4, high: 1.0}}", "1e-4 is text"),
        ("parameters: {a: {low: 2, high: 1}}", "low <= high"),
        ("parameters: {a: {low: 0.0, high: 1.0, log: true}}", "low > 0"),
        ("parameters: {a: {low: 1, hihg: 2}}", "give low and high"),
        ("parameters: {a: {choices: []}}", "choices must be a list"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "search.yaml" if text is None else written(tmp_path, text)
    with pytest.raises(UserError, match=message) as raised:
        read_space(path)
    assert str(raised.value).startswith(str(tmp_path / "search.yaml")) and "\n" not in str(raised.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_shipped_spaces_hold_their_configs_values(path: Path) -> None:
    space = read_space(path)
    config = ConfigParser.load_config_file(path.parent / "configs" / "train.yaml")
    assert list(space.values_of(config)) == list(space.parameters)
    assert set(space.trial) <= set(config)


TRAIN = repository_root() / "bundles" / "pix2pix_covid" / "configs" / "train.yaml"
VALUES = {"learning_rate": 0.0001, "batch_size": 4, "lambda_l1": 1e2, "weight_decay": 1e-05}


def test_overlay_holds_numbers_that_yaml_reads_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    write_overlay(path, VALUES, ["first", "second"])
    text = path.read_text()
    assert text.startswith("# first\n# second\nlearning_rate: 0.0001\n") and "weight_decay: 1.0e-05\n" in text
    read = yaml.safe_load(text)
    assert read == VALUES and [type(value) for value in read.values()] == [float, int, float, float]
    assert [file.name for file in tmp_path.iterdir()] == ["tuned.yaml"]


def test_overlay_passes_the_check_that_runs_begin_with(tmp_path: Path) -> None:
    write_overlay(tmp_path / "tuned.yaml", VALUES, [])
    parser = ConfigParser()
    parser.read_config([str(TRAIN), str(tmp_path / "tuned.yaml")])
    parser.parse()
    check_config(parser, ["training", "seed"])
    assert parser.get_parsed_content("weight_decay") == 1e-05
