from __future__ import annotations

import threading
from time import sleep

import pytest

from common.data.store.parallel import in_parallel
from common.errors import UserError


def test_results_keep_the_order_and_threads_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=5)

    def met(number: int) -> int:
        meeting.wait()
        return number * number

    assert in_parallel(range(6), met, 3, "working") == [0, 1, 4, 9, 16, 25]
    assert in_parallel([], met, 3, "working") == []


def refuse(number: int) -> int:
    if number % 2:
        raise UserError(f"file{number}: bad")
    return number


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([0, 1, 2], "file1: bad"),
        ([0, 1, 2, 3, 5], r"file1: bad \(2 more bad files\)"),
        ([1, 3, 5, 7, 9, 11, 13], r"file1: bad \(at least 4 more bad files\)"),
    ],
)
def test_bad_files_are_counted_up_to_five(items: list[int], says: str) -> None:
    with pytest.raises(UserError, match=f"^{says}$"):
        in_parallel(items, refuse, 1, "working")


def test_other_errors_stop_the_rest_and_come_through() -> None:
    started: list[int] = []

    def fail(number: int) -> None:
        started.append(number)
        if number == 0:
            raise KeyError(number)
        sleep(0.05)  # on a busy machine the waiting thread needs time to hear of the first

    with pytest.raises(KeyError):
        in_parallel(range(200), fail, 1, "working")
    assert len(started) < 200
