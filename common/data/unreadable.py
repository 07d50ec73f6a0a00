"""Turns what readers throw at broken files into one line for people."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from PIL import Image

from common.errors import UserError

# What PIL, nibabel and ITK were seen to raise on truncated, emptied and flipped files.
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
def explained(path: Path) -> Iterator[None]:
    """Raises `UserError` naming ``path`` where the block fails to read it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except UNREADABLE as error:
        raise UserError(
            f"{path}: cannot be read ({_reason(error)}); replace the file or remove it"
        ) from error


def _reason(error: Exception) -> str:
    """The error in a few words: ITK's messages run over many lines."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
