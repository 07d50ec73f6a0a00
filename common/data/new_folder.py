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


@contextmanager
def remade_folder(folder: str | os.PathLike[str], marker: str) -> Iterator[Path]:
    """As `new_folder`, for what is made again: ``folder`` may be absent, empty, or of an earlier run.

    Args:
        marker: name of a file that only such runs write; a folder without it is somebody else's.
    Raises:
        UserError: as `new_folder`, or ``folder`` holds other things.
    """
    target = Path(folder)
    earlier = target.is_dir() and ((target / marker).is_file() or not any(target.iterdir()))
    if target.exists() and not earlier:
        raise UserError(f"{target}: holds other files; choose another --output_dir or remove it")
    made = target.with_name(f".{target.name}.{os.getpid()}.new")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    with new_folder(made) as temporary:
        yield temporary
    if earlier:
        os.replace(target, old)
    os.replace(made, target)
    shutil.rmtree(old, ignore_errors=True)
