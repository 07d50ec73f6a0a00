"""The store's folder: made, writable, and written by one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from common.errors import UserError
from common.files import remove_leftovers

logger = logging.getLogger(__name__)
LOCK = "converting.lock"


def usable_folder(folder: Path) -> None:
    """Makes the folder where it is missing.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another --store_dir") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written; choose another --store_dir")


@contextmanager
def converting_alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: a second process waits instead of doing the same work twice.

    The system frees the lock with its holder, however that ended; what a killed one left half-written is
    removed. Where the file system knows no locks the work may be done twice: every file is renamed
    into place when it is whole, so that the result is the same.
    """
    with (folder / LOCK).open("a") as file:
        if _lock(file, folder):
            remove_leftovers(folder)
        yield


def _lock(file: TextIO, folder: Path) -> bool:
    """Waits for the lock; False where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("%s: waiting for another process that converts there", folder)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
