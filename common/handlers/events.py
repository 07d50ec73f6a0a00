"""A TensorBoard event file, written at once."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

VERSION = "brain.Event:2"  # of the format; readers ask for it in the first event
_NUMBERS = itertools.count()


class EventFile:
    """A new ``events.out.tfevents.*`` in ``folder``; each event is with the system when `add` returns.

    TensorBoard's own writer leaves that to a thread: up to two minutes late, and a full disk is a traceback
    beside a run that goes on.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        place = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self.path = folder / f"events.out.tfevents.{place}"
        self._write(Event(wall_time=time.time(), file_version=VERSION))

    def add(self, summary: Summary, step: int) -> None:
        """Adds one event."""
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        with self.path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
