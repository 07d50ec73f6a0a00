"""Tensors into a file: equal content gives equal bytes, and a full disk is told as such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Writes ``content`` as ``torch.save`` does; meant for the temporary file of an atomic write.

    Given a path, torch writes the file's name into the archive, and a temporary name differs from run to
    run; so it gets an open file. It reports a full disk as a RuntimeError of its zip writer; here that is the
    OSError.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:
            torch.save(dict(content), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
