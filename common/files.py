"""Atomic writes: a file or folder is complete or absent, also after a kill or on a full disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
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
        raise _write_errors(error, target) from error
    finally:
        with suppress(OSError):  # the error that led here says more than a failing clean-up
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of killed writers from ``folder``; nobody may be writing there."""
    for path in folder.glob(".[0-9]*.*"):
        if path.name.split(".")[1].isdigit():
            path.unlink()


def sync(path: Path) -> None:
    """Flushes a file's or folder's content to the disk (``fsync``)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes ``value`` as indented JSON, atomically; NaN raises ValueError (it is not JSON).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(f"{folder}/facts.json", {"seed": 0})
        ...     read_json(f"{folder}/facts.json")
        {'seed': 0}
    """
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
def write_errors(target: Path) -> Iterator[None]:
    """Turns errors of other writing below ``target`` into one line, as `atomic_write` does.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise _write_errors(error, target) from error


def _write_errors(error: OSError, target: Path) -> OSError | UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{target}: the disk is full; free some space and run again (an earlier file was kept)"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG):
        return UserError(f"{target}: cannot be written ({error.strerror}); choose another --output_dir")
    return error


_SYSTEM_NAMES = (
    *("@eadir", "@tmp", "__macosx", "__pycache__", "#recycle", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
)


def is_hidden(name: str) -> bool:
    """Tells whether a name belongs to the system or an editor: ``._x.png``, ``@eaDir``, ``Thumbs.db``."""
    return name.startswith(".") or name.endswith("~") or name.lower() in _SYSTEM_NAMES


def visible_files(folder: Path) -> list[Path]:
    """Returns all files below a folder at any depth, sorted, without hidden ones; follows links to folders.

    Raises:
        UserError: a link to a folder above it or to nothing, or a folder that cannot be read.
    """
    files: list[Path] = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for inner in (Path(parent, name) for name in folders):
            if inner.is_symlink():
                _check_loop(inner, folder)
        files += [Path(parent, name) for name in names if not is_hidden(name)]
    for file in files:
        if file.is_symlink() and not file.exists():
            raise UserError(f"{file}: is a link to a file that is not there; restore that or remove the link")
    return sorted(file for file in files if file.is_file())


def _check_loop(link: Path, folder: Path) -> None:
    target = link.resolve()
    above = [link.parent, *(parent for parent in link.parents if parent.is_relative_to(folder))]
    if any(parent.resolve() == target for parent in (*above, *folder.resolve().parents)):
        raise UserError(f"{link}: is a link to a folder above it ({target}); remove the link")


def _refuse_folder(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror}); check the folder") from error


@contextmanager
def atomic_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary sibling that becomes ``folder`` when the block ends well, and is removed on errors.

    Raises:
        UserError: ``folder`` exists, the disk is full or the place cannot be written.
    """
    target = Path(folder)
    check_absent(target)
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


def check_absent(folder: Path) -> None:
    """Raises `UserError` where there is something already."""
    if folder.exists():
        raise UserError(f"{folder}: exists already; choose another --output or remove it")


@contextmanager
def replaced_folder(folder: str | os.PathLike[str], marker: str) -> Iterator[Path]:
    """As `atomic_folder`, for what is made again: ``folder`` may be absent, empty, or of an earlier run.

    Args:
        marker: name of a file that only such runs write; a folder without it is somebody else's.
    Raises:
        UserError: as `atomic_folder`, or ``folder`` holds other things.
    """
    target = Path(folder)
    earlier = target.is_dir() and ((target / marker).is_file() or not any(target.iterdir()))
    if target.exists() and not earlier:
        raise UserError(f"{target}: holds other files; choose another --output_dir or remove it")
    new = target.with_name(f".{target.name}.{os.getpid()}.new")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    with atomic_folder(new) as temporary:
        yield temporary
    if earlier:
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


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
