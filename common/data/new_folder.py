"""Folders that are whole or absent: built beside their place, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError


@contextmanager
def new_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary sibling that becomes ``folder`` when the block ends well, and is removed on any error.

    Raises:
        UserError: ``folder`` exists, the disk is full or the place cannot be written.
    """
    target = Path(folder)
    refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield temporary
            temporary.chmod(0o755)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{target}: the disk is full; free some space and run again") from error
        reason = error.strerror or error
        raise UserError(f"{target}: cannot be written ({reason}); choose another place") from error


def refuse_existing(folder: Path) -> None:
    """Raises `UserError` where there is something already."""
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another --output or remove it")
