"""TensorBoard event files after a kill: what a resumed run will write again is taken out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from common.files import atomic_write

PATTERN = "events.out.tfevents.*"


def read_events(path: Path) -> Iterator[Event]:
    """The events of one file. A last record cut off by a kill ends the file without an error."""
    for record in RawEventFileLoader(str(path)).Load():
        yield Event.FromString(record)


def trim_events(folder: Path, iteration: int) -> set[tuple[str, int]]:
    """Takes every event later than ``iteration`` out of the event files in ``folder``.

    Files are rewritten atomically, in whole records; a file that holds nothing else is removed.

    Returns:
        the (tag, step) pairs that stay.
    """
    _remove_leftovers(folder)
    kept: set[tuple[str, int]] = set()
    for path in sorted(folder.glob(PATTERN)):
        events = [event for event in read_events(path) if event.step <= iteration]
        pairs = {(value.tag, event.step) for event in events for value in event.summary.value}
        if pairs:
            _rewrite(path, events)
        else:
            path.unlink()
        kept |= pairs
    return kept


def _rewrite(path: Path, events: list[Event]) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())


def _remove_leftovers(folder: Path) -> None:
    """A run killed while rewriting leaves its temporary file, which TensorBoard would read as well."""
    for path in folder.glob(f".*.{PATTERN}"):
        path.unlink()
