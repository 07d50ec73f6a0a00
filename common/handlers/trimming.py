"""TensorBoard event files after a kill: what a resumed run will write again is taken out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from common.files import atomic_write, remove_leftovers

PATTERN = "events.out.tfevents.*"
LENGTH = struct.Struct("<Q")  # a record is: length, checksum of the length, data, checksum of the data
CHECKSUM = struct.Struct("<I")
HEADER = LENGTH.size + CHECKSUM.size


def trim_events(folder: Path, iteration: int) -> set[tuple[str, int]]:
    """Takes every event later than ``iteration`` out of the event files in ``folder``.

    Files are rewritten atomically, in whole records; a file left without values is removed.

    Returns:
        the (tag, step) pairs that stay.
    """
    remove_leftovers(folder)  # TensorBoard would read them as well
    kept: set[tuple[str, int]] = set()
    for path in sorted(folder.glob(PATTERN)):
        records = [(record, event) for record, event in read_records(path) if event.step <= iteration]
        pairs = {(value.tag, event.step) for _, event in records for value in event.summary.value}
        if pairs:
            _rewrite(path, b"".join(record for record, _ in records))
        else:
            path.unlink()
        kept |= pairs
    return kept


def read_records(path: Path) -> Iterator[tuple[bytes, Event]]:
    """The records of one file as they stand and the event in each. One cut off by a kill ends the file.

    TensorBoard's own reader checks the sum of all data in Python: a minute for the events of a long run.
    """
    content = path.read_bytes()
    start = 0
    while start + HEADER <= len(content):
        (length,) = LENGTH.unpack_from(content, start)
        end = start + HEADER + length + CHECKSUM.size
        if end > len(content) or not _length_is_sound(content, start):
            return
        try:
            event = Event.FromString(content[start + HEADER : end - CHECKSUM.size])
        except DecodeError:
            return
        yield content[start:end], event
        start = end


def _length_is_sound(content: bytes, start: int) -> bool:
    middle = start + LENGTH.size
    (checksum,) = CHECKSUM.unpack_from(content, middle)
    return bool(masked_crc32c(content[start:middle]) == checksum)


def _rewrite(path: Path, content: bytes) -> None:
    if path.stat().st_size == len(content):
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
