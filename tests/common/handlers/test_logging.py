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
from tensorboard.compat.proto.summary_pb2 import Summary

from common.handlers.logging import (
    EventFile,
    IterationTable,
    ProgressBar,
    TrainingLogger,
)
from tests.common.handlers.events import shown_events


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


def counts(folder: Path) -> Counter[tuple[str, int]]:
    """How often each (tag, step) is shown."""
    return Counter((tag, step) for tag, step, _ in shown_events(folder).elements())


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_every_entry_of_every_iteration_is_written(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    trainer(plain_losses, [TrainingLogger(tmp_path)]).train(8)
    assert scalars(tmp_path, "train/loss") == [(i, np.float32(1 / i)) for i in range(1, 9)]
    rows = list(csv.DictReader((tmp_path / "losses.csv").read_text().splitlines()))
    assert [float(row["D_loss"]) for row in rows] == [0.1 * i for i in range(1, 9)]
    assert [row["epoch"] for row in rows] == ["1"] * 4 + ["2"] * 4


def test_interval(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    trainer(plain_losses, [TrainingLogger(tmp_path, interval=3)]).train(8)
    assert [step for step, _ in scalars(tmp_path, "train/loss")] == [3, 6]


def test_killed_and_resumed_logs_like_one_run(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    trainer(plain_losses, [TrainingLogger(straight)]).train(12)
    with pytest.raises(KilledError):
        trainer(plain_losses, [TrainingLogger(broken), Kill(9)]).train(12)
    trainer(plain_losses, [TrainingLogger(broken)], start=6).train(12)
    assert (broken / "losses.csv").read_bytes() == (straight / "losses.csv").read_bytes()
    assert counts(broken) == counts(straight)
    assert set(counts(broken).values()) == {1}
    assert scalars(broken, "train/loss") == scalars(straight, "train/loss")


def run_until_sigkill(folder: Path, trainer: Any, plain_losses: Any) -> None:
    """Flushes after iteration 6, as the saver of the resume file does, and dies in iteration 10."""

    def logs(iteration: int) -> dict[str, float]:
        if iteration == 7:
            log.flush()
        if iteration == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return dict(plain_losses(iteration))

    log = TrainingLogger(folder)
    trainer(logs, [log]).train(12)


def test_flushed_before_a_sigkill_is_on_disk(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    process = get_context("fork").Process(target=run_until_sigkill, args=(tmp_path, trainer, plain_losses))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {("train/loss", step) for step in range(1, 7)} <= set(counts(tmp_path))
    trainer(plain_losses, [TrainingLogger(tmp_path)], start=6).train(12)
    assert counts(tmp_path) == Counter(
        (tag, i) for tag in ("train/loss", "train/D_loss") for i in range(1, 13)
    )
    assert sorted(step for step, _ in scalars(tmp_path, "train/D_loss")) == list(range(1, 13))


def test_pictures_of_other_handlers(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    log = TrainingLogger(tmp_path)
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
        trainer(plain_losses, [TrainingLogger(tmp_path), Kill(3)]).train(4)
    assert set(counts(tmp_path)) == {(tag, i) for tag in ("train/loss", "train/D_loss") for i in (1, 2, 3)}


def test_tensorboard_reads_what_is_just_written(tmp_path: Path) -> None:
    events = EventFile(tmp_path)
    for step in (3, 4):
        events.add(Summary(value=[Summary.Value(tag="loss", simple_value=0.5 * step)]), step)
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in accumulator.Scalars("loss")] == [(3, 1.5), (4, 2.0)]
    assert accumulator.file_version == 2.0


def test_two_files_in_a_second_have_two_names(tmp_path: Path) -> None:
    for _ in range(2):
        EventFile(tmp_path)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "losses.csv"


def filled(path: Path, iterations: int) -> IterationTable:
    table = IterationTable(path)
    table.open(0)
    for iteration in range(1, iterations + 1):
        table.append(iteration, 1, {"loss": 1 / iteration})
    table.flush()
    return table


def test_floats_are_read_back_exactly(path: Path) -> None:
    filled(path, 3).close()
    assert path.read_text() == "iteration,epoch,loss\n1,1,1.0\n2,1,0.5\n3,1,0.3333333333333333\n"


def test_a_late_name_gets_a_column(path: Path) -> None:
    table = filled(path, 1)
    table.append(2, 1, {"loss": 0.5, "convergence": 0.25})
    table.append(3, 2, {"convergence": 0.125})
    table.close()
    assert path.read_text() == "iteration,epoch,loss,convergence\n1,1,1.0,\n2,1,0.5,0.25\n3,2,,0.125\n"


def test_going_on_takes_later_rows_out(path: Path) -> None:
    filled(path, 5).close()
    table = IterationTable(path)
    table.open(2)
    table.append(3, 7, {"loss": 9.0})
    table.close()
    assert path.read_text() == "iteration,epoch,loss\n1,1,1.0\n2,1,0.5\n3,7,9.0\n"


@pytest.mark.parametrize("cut", [1, 4, 12])
def test_a_row_cut_off_by_a_kill_goes(path: Path, cut: int) -> None:
    filled(path, 4).close()
    path.write_text(path.read_text()[: -len("4,1,0.25\n")] + "4,1,0.2500000"[:-cut])
    IterationTable(path).open(9)
    assert path.read_text().splitlines()[-1] == "3,1,0.3333333333333333"


def test_a_fresh_start_drops_the_rows_of_an_earlier_run(path: Path) -> None:
    filled(path, 4).close()
    IterationTable(path).open(0)
    assert path.read_text() == "iteration,epoch,loss\n"


def test_nothing_is_written_before_the_first_row(path: Path) -> None:
    IterationTable(path).open(0)
    assert not path.exists()


def test_steps_of_a_killed_run_are_shown_once_with_the_new_values(tmp_path: Path) -> None:
    """A record cut off by the kill ends the old file; a fresh run hides iteration 0 of the one before."""
    for purge_step, steps, factor in ((0, range(6), 1.0), (4, range(4, 6), 2.0), (0, range(2), 3.0)):
        events = EventFile(tmp_path, purge_step)
        for step in steps:
            events.add(Summary(value=[Summary.Value(tag="loss", simple_value=factor * step)]), step)
        if purge_step:
            assert scalars(tmp_path, "loss") == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 8), (5, 10)]
        events.path.write_bytes(events.path.read_bytes()[:-3] + bytes(3 * (factor == 1)))
    assert scalars(tmp_path, "loss") == [(0, 0.0)]


def test_the_whole_run_is_shown_with_losses(trainer: Any, plain_losses: Any, capsys: Any) -> None:
    trainer(plain_losses, [ProgressBar(names=["D_loss"])]).train(8)
    last = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert "8/8" in last and "D_loss=0.8" in last and "it/s" in last and " loss=" not in last


def test_a_resumed_run_starts_where_it_was(trainer: Any, plain_losses: Any, capsys: Any) -> None:
    trainer(plain_losses, [ProgressBar()], start=6).train(8)
    first = capsys.readouterr().err.lstrip("\r").split("\r")[0]
    assert "6/8" in first


def test_a_log_file_is_not_flooded(trainer: Any, plain_losses: Any, capsys: Any) -> None:
    trainer(plain_losses, [ProgressBar()]).train(400)
    assert capsys.readouterr().err.count("\r") <= 4


def test_the_bar_closes_on_errors(trainer: Any) -> None:
    bar = ProgressBar()
    with pytest.raises(ZeroDivisionError):
        trainer(lambda iteration: {"loss": 1 / (iteration - 2)}, [bar]).train(4)
    assert bar.bar is None
