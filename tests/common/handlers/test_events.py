from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary

from common.handlers.events import EventFile


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
