"""The written log of a run: TensorBoard events and ``losses.csv``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import summary

from common.files import explained, sync
from common.handlers.closing import on_exception
from common.handlers.events import EventFile
from common.handlers.readings import logs
from common.handlers.table import IterationTable
from common.handlers.trimming import PATTERN, trim_events
from common.training.distributed import is_main

LOSSES = "losses.csv"
FRESH = -1  # a fresh run keeps nothing, not even the untrained network's pictures of iteration 0
PREFIX = "train/"  # TensorBoard shows tags with the same prefix on one page


class ScalarLog:
    """Writes ``engine.state.logs`` to TensorBoard (``train/<name>``) and to ``losses.csv``; others add to it.

    When a run starts at iteration ``n``, everything later than ``n`` (all of it for a fresh run) is taken out
    of the folder: an earlier, killed run wrote it after its last resume file, and this run will write it
    again. What is added before the run starts waits until then. Only the main process writes.

    Args:
        folder: for the event files and ``losses.csv``.
        interval: iterations between two entries.
    """

    def __init__(self, folder: str | Path, interval: int = 1) -> None:
        self.folder, self.interval = Path(folder), interval
        self.table = IterationTable(self.folder / LOSSES)
        self._events: EventFile | None = None
        self._kept: set[tuple[str, int]] = set()
        self._waiting: list[tuple[str, str, int]] = []  # texts (tag, text, step) from before the start

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

    def add_text(self, tag: str, text: str, step: int = 0) -> None:
        """Adds a text (Markdown) unless an earlier part of the run has; may be called before the start."""
        if self._events is None:
            self._waiting.append((tag, text, step))
        elif (f"{tag}/text_summary", step) not in self._kept:
            self._add(summary.text(tag, text), step)

    def flush(self) -> None:
        """Puts everything on the disk. To be called before a resume file is written."""
        if self._events is not None:
            with explained(self.folder):
                self.table.flush()
                for path in self.folder.glob(PATTERN):
                    sync(path)

    def close(self) -> None:
        """Puts everything on the disk and closes the table; nothing is logged from here on."""
        with explained(self.folder):
            try:
                self.flush()
            finally:
                self._events = None
                self.table.close()

    def _start(self, engine: Engine) -> None:
        self.close()
        if not is_main():
            return
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._kept = trim_events(self.folder, engine.state.iteration or FRESH)
            self.table.open(engine.state.iteration)
            self._events = EventFile(self.folder)
        for entry in self._waiting:
            self.add_text(*entry)
        self._waiting = []

    def _finish(self, engine: Engine) -> None:
        """The event file stays open: a validation at the end of the run comes after this."""
        self.flush()
        self.table.close()

    def _write(self, engine: Engine) -> None:
        if self._events is None:
            return
        values = {name: float(value) for name, value in logs(engine).items()}
        self.add_scalars({PREFIX + name: value for name, value in values.items()}, engine.state.iteration)
        with explained(self.folder):
            self.table.append(engine.state.iteration, engine.state.epoch, values)

    def _add(self, entry: Summary, step: int) -> None:
        if self._events is not None:
            with explained(self.folder):
                self._events.add(entry, step)
