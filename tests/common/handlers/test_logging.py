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
from torch.utils.tensorboard import FileWriter

from common.handlers.logging import (
    PATTERN,
    EventFile,
    IterationTable,
    ProgressBar,
    TrainingLogger,
    read_records,
    trim_events,
)


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

    log = TrainingLogger(folder)
    trainer(logs, [log]).train(12)


def test_flushed_before_a_sigkill_is_on_disk(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    process = get_context("fork").Process(target=run_until_sigkill, args=(tmp_path, trainer, plain_losses))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {("train/loss", step) for step in range(1, 7)} <= set(raw_counts(tmp_path))
    trainer(plain_losses, [TrainingLogger(tmp_path)], start=6).train(12)
    assert raw_counts(tmp_path) == Counter(
        (tag, i) for tag in ("train/loss", "train/D_loss") for i in range(1, 13)
    )
    assert sorted(step for step, _ in scalars(tmp_path, "train/D_loss")) == list(range(1, 13))


def test_a_text_is_written_once(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    for start in (0, 4):
        log = TrainingLogger(tmp_path)
        log.add_text("config", "batch size 4")
        trainer(plain_losses, [log], start=start).train(8)
    assert raw_counts(tmp_path)["config/text_summary", 0] == 1


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
    assert set(raw_counts(tmp_path)) == {
        (tag, i) for tag in ("train/loss", "train/D_loss") for i in (1, 2, 3)
    }


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


def write(folder: Path, steps: range, tag: str = "loss") -> Path:
    writer = FileWriter(str(folder))
    for step in steps:
        writer.add_summary(Summary(value=[Summary.Value(tag=tag, simple_value=step / 3)]), step)
    writer.close()
    return max(folder.glob(PATTERN), key=lambda path: path.stat().st_mtime_ns)


def steps_in(path: Path) -> list[int]:
    return [event.step for _, event in read_records(path) if event.summary.value]


def test_later_events_are_taken_out_and_the_pairs_that_stay_returned(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 8))
    assert trim_events(tmp_path, 3) == {("loss", 1), ("loss", 2), ("loss", 3)}
    assert steps_in(path) == [1, 2, 3]


def test_a_file_without_later_events_is_not_touched(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 4))
    before = path.stat().st_mtime_ns, path.read_bytes()
    trim_events(tmp_path, 3)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_file_with_later_events_only_goes(tmp_path: Path) -> None:
    first, second = write(tmp_path, range(1, 4)), write(tmp_path, range(4, 6))
    trim_events(tmp_path, 3)
    assert first.exists() and not second.exists()


@pytest.mark.parametrize("cut", [1, 5, 13, 20])
def test_a_record_cut_off_by_a_kill_ends_the_file(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, range(1, 6))
    path.write_bytes(path.read_bytes()[:-cut])
    assert steps_in(path) == [1, 2, 3, 4]
    trim_events(tmp_path, 9)
    assert steps_in(path) == [1, 2, 3, 4]
    assert sum(len(record) for record, _ in read_records(path)) == path.stat().st_size


def test_zeros_at_the_end_are_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 3))
    path.write_bytes(path.read_bytes() + bytes(100))
    trim_events(tmp_path, 9)
    assert steps_in(path) == [1, 2]


def test_the_temporary_file_of_a_killed_rewrite_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path, range(1, 3))
    leftover = path.with_name(f".4711.{path.name}")
    leftover.write_bytes(path.read_bytes())
    trim_events(tmp_path, 2)
    assert list(tmp_path.iterdir()) == [path]


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
