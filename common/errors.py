"""Errors that a user can correct: one line with the file, what is wrong and what to do."""

from __future__ import annotations

import gzip
import os
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from PIL import Image

DEBUG_VARIABLE = "SYNTHESIS_DEBUG"


class UserError(Exception):
    """An error that the user can correct. Its message is one line: the file, what is wrong, what to do.

    Example:
        >>> try:
        ...     raise ValueError("no header") from UserError("scan.nii.gz: is empty; replace the file")
        ... except ValueError as error:
        ...     print(one_line(error))
        scan.nii.gz: is empty; replace the file
    """


class TrainingDiverged(UserError):
    """Training produced NaN, inf or constant images; the last good checkpoint was kept."""


def debug_wanted() -> bool:
    """Tells whether the environment asks for tracebacks (``SYNTHESIS_DEBUG=1``)."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def one_line(error: BaseException) -> str:
    """Returns the root cause of ``error`` as one line; all but a `UserError` get their type's name."""
    root = root_cause(error)
    text = " ".join(str(root).split()) or "no message"
    return text if isinstance(root, UserError) else f"{type(root).__name__}: {text}"


def root_cause(error: BaseException) -> BaseException:
    """Returns the first `UserError` in the chain of causes, else the innermost: MONAI wraps all errors."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return next((item for item in chain if isinstance(item, UserError)), chain[-1])


def show_one_line(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Prints one line instead of a traceback unless debugging is on; used as ``sys.excepthook``."""
    if debug_wanted() or issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    hint = "" if isinstance(root_cause(error), UserError) else f" (traceback: set {DEBUG_VARIABLE}=1)"
    print(f"error: {one_line(error)}{hint}", file=sys.stderr)


def install_hook() -> None:
    """Installs `show_one_line`: uncaught errors become one line each, the exit code stays non-zero."""
    sys.excepthook = show_one_line


def check_int(setting: str, value: Any, least: int = 0) -> int:
    """Returns ``value``, an int or digits as text, as an int.

    Args:
        setting: its name, for the message.
        least: smallest value allowed.
    Raises:
        UserError: anything else.

    Example:
        >>> check_int("num_samples", "8", least=1)
        8
    """
    text = str(value).strip()
    digits = text.removeprefix("-")
    if isinstance(value, (bool, float)) or not (digits.isascii() and digits.isdigit()) or int(text) < least:
        raise UserError(f"{setting} {value}: give a whole number of at least {least}")
    return int(text)


# What PIL, nibabel and ITK raise on truncated, empty and damaged files (observed).
# SyntaxError is PIL's for broken PNG chunks; RuntimeError and TypeError are ITK's.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    RuntimeError,
    SyntaxError,
    MemoryError,
    AssertionError,
    zlib.error,
    struct.error,
    gzip.BadGzipFile,
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    Image.DecompressionBombError,
)


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turns errors of reading ``path`` within the block into a `UserError` of one line.

    Example:
        >>> with read_errors(Path("scan.nii.gz")):  # doctest: +ELLIPSIS
        ...     raise EOFError("Compressed file ended early")
        Traceback (most recent call last):
        common.errors.UserError: scan.nii.gz: cannot be read (Compressed file ended early); replace ...
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except UNREADABLE as error:
        raise UserError(
            f"{path}: cannot be read ({_reason(error)}); replace the file or remove it"
        ) from error


def _reason(error: Exception) -> str:
    """Shortens the error's message: ITK's run over many lines and begin with a position in its source."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^.*ITK ERROR: \w+\(\w+\): ", "ITK: ", text)
    return text if len(text) <= 160 else text[:157] + "..."
