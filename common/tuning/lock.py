"""One search or sweep a folder at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

LOCK = "search.lock"


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Holds the folder's lock and yields its descriptor.

    A process that inherits the descriptor holds the lock too: a trial whose search was killed keeps the next
    search out until it has ended. The system frees the lock with its last holder, however that ended.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: a search or sweep, or a training that a killed one left, is still running there; "
                "wait until it has ended, or end it"
            ) from error
        yield file.fileno()
