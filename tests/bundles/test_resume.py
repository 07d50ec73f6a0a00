"""A killed run goes on as if nothing had happened: the same bits, no doubled entries in the logs."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.case import BundleCase
from tests.bundles.cases import CASES
from tests.bundles.runs import Forked, forked
from tests.common.handlers.events import shown_events

EPOCHS, ITERATIONS = 4, 40
KILLS = 2


def settings(case: BundleCase, workers: int, amp: bool | str) -> dict[str, Any]:
    more = {"num_workers": workers, "amp": amp, "resume_interval": 2, "val_interval": 1, "ema_half_life": 13}
    return {**more, **case.augment, "max_epochs": EPOCHS}


def iterations(folder: Path) -> int:
    """Rows in the run's table so far."""
    table = folder / "logs" / "losses.csv"
    return max(0, table.read_text().count("\n") - 1) if table.is_file() else 0


def train_with_kills(train: Callable[..., list[str]], folder: Path, log: Path, seed: str) -> list[int]:
    """Kills the run of the command line ``train(resume=...)`` at random iterations, then lets it end.

    Returns:
        Where it was killed.
    """
    places = sorted(random.Random(seed).sample(range(1, ITERATIONS - 4), KILLS))
    killed = []
    for number, place in enumerate(places):
        run = Forked(train(resume=number > 0), log.with_name(f"kill{number}"))
        while iterations(folder) < place and run.process.is_alive():
            time.sleep(0.002)
        run.kill()
        killed.append(iterations(folder))
    last = forked(train(resume=True), log)
    assert last.code == 0, last.err
    return killed


def equal(one: Any, other: Any) -> bool:
    """Bitwise, through dicts and lists."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def assert_same(one: Path, other: Path) -> None:
    for name in ("logs/losses.csv", "models/model.pt", "models/model.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    states = [torch.load(folder / "models" / "resume.pt", weights_only=True) for folder in (one, other)]
    for state in states:
        state["handlers"].pop("budget")  # the time spent, which is measured
    assert [key for key in states[0] if not equal(states[0][key], states[1][key])] == []
    shown = shown_events(one / "logs")
    assert set(shown.values()) == {1} and shown == shown_events(other / "logs")
    pictures = [
        sorted(path.name for path in (folder / "logs" / "samples").iterdir()) for folder in (one, other)
    ]
    assert pictures[0] == pictures[1]


SETTINGS = [
    pytest.param(2, False, id="workers-float32"),  # whose batches are those without workers
    pytest.param(0, False, id="float32", marks=pytest.mark.slow),
    pytest.param(0, "bf16", id="bf16", marks=pytest.mark.slow),
    pytest.param(2, "bf16", id="workers-bf16", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("workers", "amp"), SETTINGS)
def test_a_killed_and_resumed_run_is_bitwise_the_straight_one(
    case: BundleCase, data: Path, tmp_path: Path, workers: int, amp: bool | str
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    given = settings(case, workers, amp)
    run = forked(case.training(data, straight, **given), tmp_path / "straight")
    assert run.code == 0, run.err
    train = partial(case.training, data, broken, **given)
    killed = train_with_kills(train, broken, tmp_path / "broken", f"{workers} {amp}")
    assert any(0 < place < ITERATIONS for place in killed), killed
    assert_same(straight, broken)


LONGER = [
    pytest.param(case, decay_from, marks=[pytest.mark.slow] * (number > 0), id=f"{case.name}-{decay_from}")
    for number, (decay_from, case) in enumerate(product((1.0, 0.5), CASES))
]


@pytest.mark.parametrize(("case", "decay_from"), LONGER)
def test_a_run_given_more_epochs_is_the_longer_one(
    case: BundleCase, data: Path, tmp_path: Path, decay_from: float
) -> None:
    """The first part ends where the longer run's rate has not begun to fall, so nothing may differ."""
    given = {"val_interval": 1, "decay_from": decay_from}
    for name, epochs in (("straight", [2]), ("extended", [1, 2])):
        for number, last in enumerate(epochs):
            parts = case.training(data, tmp_path / name, **given, max_epochs=last, resume=number > 0)
            run = forked(parts, tmp_path / "log")
            assert run.code == 0, run.err
    assert_same(tmp_path / "straight", tmp_path / "extended")


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_an_unreadable_resume_file_falls_back_to_the_one_before(
    case: BundleCase, trained: tuple[Path, Any], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    newest = tmp_path / "run" / "models" / "resume.pt"
    newest.write_bytes(newest.read_bytes()[:700])
    run = forked(case.training(data, tmp_path / "run", max_epochs=3, resume=True), tmp_path / "log")
    assert run.code == 0, run.err
    assert f"{newest}: unreadable resume file" in run.out + run.err
    assert "resumed after iteration" in run.out
