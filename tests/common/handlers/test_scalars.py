from __future__ import annotations

import csv
import os
import signal
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ignite.engine import Engine, Events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.handlers.scalars import ScalarLog
from common.handlers.trimming import PATTERN, read_records


class KilledError(Exception):
    """Ends a run in the middle."""


class Kill:
    """Fails at one iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._kill)

    def _kill(self, engine: Engine) -> None:
        if engine.state.iteration == self.iteration:
            raise KilledError


def raw_counts(folder: Path) -> Counter[tuple[str, int]]:
    """How often each (tag, step) stands in the event files."""
    records = [event for path in folder.glob(PATTERN) for _, event in read_records(path)]
    return Counter((value.tag, event.step) for event in records for value in event.summary.value)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_every_entry_of_every_iteration_is_written(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    trainer(plain_losses, [ScalarLog(tmp_path)]).train(8)
    assert scalars(tmp_path, "train/loss") == [(i, np.float32(1 / i)) for i in range(1, 9)]
    rows = list(csv.DictReader((tmp_path / "losses.csv").read_text().splitlines()))
    assert [float(row["D_loss"]) for row in rows] == [0.1 * i for i in range(1, 9)]
    assert [row["epoch"] for row in rows] == ["1"] * 4 + ["2"] * 4


def test_interval(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    trainer(plain_losses, [ScalarLog(tmp_path, interval=3)]).train(8)
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [3, 6]


def test_killed_and_resumed_logs_like_one_run(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    trainer(plain_losses, [ScalarLog(straight)]).train(12)
    with pytest.raises(KilledError):
        trainer(plain_losses, [ScalarLog(broken), Kill(9)]).train(12)
    trainer(plain_losses, [ScalarLog(broken)], start=6).train(12)
    assert (broken / "losses.csv").read_bytes() == (straight / "losses.csv").read_bytes()
    assert raw_counts(broken) == raw_counts(straight)
    assert set(raw_counts(broken).values()) == {1}
    assert scalars(broken, "train/loss") == scalars(straight, "train/loss")


def run_until_sigkill(folder: Path, trainer: Any, plain_losses: Any) -> None:
    """Flushes after iteration 6, as the saver of the resume file does, and dies in iteration 10."""

    def logs(iteration: int) -> dict[str, float]:
        if iteration == 7:
            log.flush()
        if iteration == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(plain_losses(iteration))

    log = ScalarLog(folder)
    trainer(logs, [log]).train(12)


def test_flushed_before_a_sigkill_is_on_disk(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    process = get_context("fork").Process(target=run_until_sigkill, args=(tmp_path, trainer, plain_losses))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {("train/loss", step) for step in range(1, 7)} <= set(raw_counts(tmp_path))
    trainer(plain_losses, [ScalarLog(tmp_path)], start=6).train(12)
    assert raw_counts(tmp_path) == Counter(
        (tag, i) for tag in ("train/loss", "train/D_loss") for i in range(1, 13)
    )
    assert sorted(step for step, _ in scalars(tmp_path, "train/D_loss")) == list(range(1, 13))


def test_a_text_is_written_once(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    for start in (0, 4):
        log = ScalarLog(tmp_path)
        log.add_text("config", "batch size 4")
        trainer(plain_losses, [log], start=start).train(8)
    assert raw_counts(tmp_path)["config/text_summary", 0] == 1


def test_pictures_of_other_handlers(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    log = ScalarLog(tmp_path)
    trainer(plain_losses, [log]).train(4)
    log.add_image("samples", np.zeros((5, 7), np.uint8), 4)
    log.add_scalars({"val/ssim": 0.5}, 4)
    log.flush()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    (image,) = accumulator.Images("samples")
    assert (image.step, image.width, image.height) == (4, 7, 5)
    assert scalars(tmp_path, "val/ssim") == [(4, 0.5)]


def test_an_error_leaves_everything_on_disk(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    with pytest.raises(KilledError):
        trainer(plain_losses, [ScalarLog(tmp_path), Kill(3)]).train(4)
    assert set(raw_counts(tmp_path)) == {
        (tag, i) for tag in ("train/loss", "train/D_loss") for i in (1, 2, 3)
    }
