from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import FileWriter

from common.handlers.trimming import PATTERN, read_records, trim_events


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
