"""Work on many files in threads: one progress bar, and one line where files are bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TypeVar

from tqdm import tqdm

from common.data.checks import MOST_PROBLEMS, summary_of
from common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    items: Sequence[Item], action: Callable[[Item], Result], workers: int, title: str
) -> list[Result]:
    """``action`` of every item, in order; goes on after a bad file to tell how many there are.

    Threads are enough: decompression, array arithmetic and resizing work outside Python's lock. (ITK, which
    reads MHD and DICOM, does not: of those files one is read at a time, the rest of the work is parallel.)

    Raises:
        UserError: the first bad file, with the number of others (it stops counting at five).
    """
    if not items:
        return []
    pool = ThreadPoolExecutor(min(workers, len(items)))
    try:
        futures = [pool.submit(action, item) for item in items]
        _wait(futures, title)
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(futures: Sequence[Future[Result]], title: str) -> None:
    """Until all are done; raises what went wrong."""
    places = {future: place for place, future in enumerate(futures)}
    problems: dict[int, str] = {}
    for future in tqdm(as_completed(futures), title, len(futures), unit="file", disable=None, leave=False):
        error = future.exception()
        if error is not None and not isinstance(error, UserError):
            raise error
        if error is not None:
            problems[places[future]] = str(error)
        if len(problems) == MOST_PROBLEMS:
            break
    if problems:
        lines = dict.fromkeys(problems[place] for place in sorted(problems))
        raise UserError(summary_of(list(lines)))
