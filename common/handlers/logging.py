"""Logs of a run: TensorBoard events, ``losses.csv`` and the progress bar."""

from __future__ import annotations

import csv
import io
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from ignite.engine import Engine, Events
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary
from tqdm import tqdm

from common.files import atomic_write, sync, write_errors
from common.handlers.engine import logs, on_exception
from common.training.distributed import is_main

VERSION = "brain.Event:2"  # of the format; readers ask for it in the first event


class EventFile:
    """A new ``events.out.tfevents.*`` in ``folder``; each event is with the system when `add` returns.

    ``SummaryWriter`` leaves that to a thread: up to two minutes late, and a full disk is a traceback from
    there while the run goes on.

    Args:
        folder: holds the files of earlier parts of the run, too.
        purge_step: readers drop events of earlier files from this step on, as with
            ``SummaryWriter(purge_step=...)``.
    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int = 0) -> None:
        # Readers take the files in the order of their names; TensorBoard's own count whole seconds.
        self.path = folder / f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._write(Event(wall_time=time.time(), file_version=VERSION))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def add(self, summary: Summary, step: int) -> None:
        """Adds one event."""
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        with self.path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


KEYS = ("iteration", "epoch")


class IterationTable:
    """A CSV file of rows ``iteration,epoch,<names>``; floats as ``repr``, so that they are read back exactly.

    A name that appears late gets a new column, empty in the earlier rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: list[str] = []
        self._file: IO[str] | None = None

    def open(self, iteration: int) -> None:
        """Continues after ``iteration``: later rows, and a last row cut off by a kill, are removed."""
        self.close()
        header, rows = _read(self.path) if self.path.is_file() else ([], [])
        self._names = header[len(KEYS) :]
        self._rewrite([row for row in rows if int(row[0]) <= iteration])

    def append(self, iteration: int, epoch: int, values: Mapping[str, float]) -> None:
        """Adds the row of one iteration."""
        new = [name for name in values if name not in self._names]
        if new:
            self._widen(new)
        row = [str(iteration), str(epoch), *(_text(values.get(name)) for name in self._names)]
        self._handle().write(_line(row))

    def flush(self) -> None:
        """Puts all rows on the disk."""
        if self._file is not None:
            self._file.flush()
            sync(self.path)

    def close(self) -> None:
        """Flushes and closes the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _handle(self) -> IO[str]:
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="", buffering=1)
        return self._file

    def _widen(self, new: list[str]) -> None:
        self.close()
        rows = _read(self.path)[1] if self.path.is_file() else []
        self._names += new
        self._rewrite([row + [""] * len(new) for row in rows])

    def _rewrite(self, rows: list[list[str]]) -> None:
        if not self._names:
            return
        with atomic_write(self.path) as temporary:
            lines = [_line([*KEYS, *self._names]), *map(_line, rows)]
            temporary.write_text("".join(lines), encoding="utf-8", newline="")


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the complete rows; a line without its end was cut off."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = list(csv.reader(line for line in lines if line.endswith("\n")))
    if not rows:
        return [], []
    return rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]


def _text(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


LOSSES = "losses.csv"
PREFIX = "train/"  # TensorBoard shows tags with the same prefix on one page


class TrainingLogger:
    """Writes ``engine.state.logs`` to TensorBoard (``train/<name>``) and to ``losses.csv``; others add to it.

    A run that starts at iteration ``n`` drops everything later than ``n`` (all of it for a fresh run): an
    earlier, killed run wrote it after its last resume file, and this run writes it again. Only the main
    process writes.

    Args:
        folder: for the event files and ``losses.csv``.
        interval: iterations between two entries.
    """

    def __init__(self, folder: str | Path, interval: int = 1) -> None:
        self.folder, self.interval = Path(folder), interval
        self.table = IterationTable(self.folder / LOSSES)
        self._events: EventFile | None = None

    def attach(self, engine: Engine) -> None:
        """Attach after what adds to ``engine.state.logs``, before what adds images and metrics."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self._write)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        on_exception(engine, self.close)

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds one TensorBoard scalar per entry (tag: value), in one event (a fourth of the time)."""
        entries = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
        self._add(Summary(value=entries), step)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 of (H, W) or (H, W, 3)."""
        layout = "HW" if image.ndim == 2 else "HWC"
        self._add(summary.image(tag, image, dataformats=layout), step)

    def flush(self) -> None:
        """Puts everything on the disk. To be called before a resume file is written."""
        if self._events is not None:
            with write_errors(self.folder):
                self.table.flush()
                sync(self._events.path)

    def close(self) -> None:
        """Puts everything on the disk and closes the table; nothing is logged from here on."""
        with write_errors(self.folder):
            try:
                self.flush()
            finally:
                self._events = None
                self.table.close()

    def _start(self, engine: Engine) -> None:
        self.close()
        if not is_main():
            return
        iteration = engine.state.iteration
        with write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.table.open(iteration)
            self._events = EventFile(self.folder, purge_step=iteration + 1 if iteration else 0)

    def _finish(self, engine: Engine) -> None:
        """The event file stays open: a validation at the end of the run comes after this."""
        self.flush()
        self.table.close()

    def _write(self, engine: Engine) -> None:
        if self._events is None:
            return
        values = {name: float(value) for name, value in logs(engine).items()}
        self.add_scalars({PREFIX + name: value for name, value in values.items()}, engine.state.iteration)
        with write_errors(self.folder):
            self.table.append(engine.state.iteration, engine.state.epoch, values)

    def _add(self, entry: Summary, step: int) -> None:
        if self._events is not None:
            with write_errors(self.folder):
                self._events.add(entry, step)


QUIET_INTERVAL = 5.0  # seconds between lines where the output is a file, not a terminal
SHOWN = 3


class ProgressBar:
    """Progress bar over the whole run on standard error, with it/s, the time left and a few losses.

    Ignite's bar counts the iterations of one epoch and starts at 0 after a resume, so it cannot show when the
    run ends.

    Args:
        names: entries of ``engine.state.logs`` to show; None for the first three.
        description: the text before the bar.
    """

    def __init__(self, names: Sequence[str] | None = None, description: str = "training") -> None:
        self.names = None if names is None else list(names)
        self.description = description
        self.bar: tqdm | None = None

    def attach(self, engine: Engine) -> None:
        """Attach last, so that the bar moves when an iteration is really done."""
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.COMPLETED, self.close)
        on_exception(engine, self.close)

    def close(self, engine: Engine | None = None) -> None:
        """Draws the last state and ends the line."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _open(self, engine: Engine) -> None:
        self.close()
        state: Any = engine.state
        self.bar = tqdm(
            total=state.max_epochs * state.epoch_length,
            initial=state.iteration,
            desc=self.description,
            unit="it",
            disable=not is_main(),
            dynamic_ncols=True,
            **pace(),
        )

    def _advance(self, engine: Engine) -> None:
        if self.bar is None:
            return
        values = logs(engine)
        names = (
            list(values)[:SHOWN] if self.names is None else [name for name in self.names if name in values]
        )
        self.bar.set_postfix({name: f"{values[name]:.3g}" for name in names}, refresh=False)
        self.bar.update(engine.state.iteration - self.bar.n)


def pace() -> dict[str, Any]:
    """Returns tqdm's refresh settings: a terminal is redrawn often, a log file is not flooded."""
    if sys.stderr.isatty():
        return {}
    return {"mininterval": QUIET_INTERVAL, "maxinterval": 2 * QUIET_INTERVAL}
