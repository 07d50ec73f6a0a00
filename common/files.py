"""Files that are whole or absent: written beside their place, synced, then renamed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.errors import UserError


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the target's folder; renames it to ``path`` when the block ends well.

    The temporary name keeps the target's suffixes (writers choose the format by them). On any error
    the temporary file is removed and an earlier ``path`` stays as it was.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        raise _explained(error, target) from error
    finally:
        with suppress(OSError):  # the error that led here says more than a failing clean-up
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed writers left in ``folder``, in which nobody must be writing now."""
    for path in folder.glob(".[0-9]*.*"):
        if path.name.split(".")[1].isdigit():
            path.unlink()


def sync(path: Path) -> None:
    """Asks the system to put a file's or folder's content on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically. NaN is refused (it is not JSON)."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); restore or delete the file") from error


@contextmanager
def explained(target: Path) -> Iterator[None]:
    """For other writing below ``target``: a full disk and the like end in one line, as in `atomic_write`.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _explained(error, target) from error


def _explained(error: OSError, target: Path) -> OSError | UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{target}: the disk is full; free some space and run again (an earlier file was kept)"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG):
        return UserError(f"{target}: cannot be written ({error.strerror}); choose another --output_dir")
    return error


def shown_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones, caches and editors' copies."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith("~")
        and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
    ]
