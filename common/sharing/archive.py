"""One zip, the same bytes for the same contents, whenever and wherever it is written."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from common.files import atomic_write

MOMENT = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
PERMISSIONS = 0o100644 << 16  # a plain file, rw-r--r--
UNIX = 3


def write_archive(path: Path, folder: str, contents: Mapping[str, bytes]) -> None:
    """Writes ``contents`` (path in the folder -> bytes) below one top folder, sorted, atomically.

    Files are stored, not compressed: weights do not shrink, and another zlib would give other bytes.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(f"{folder}/{name}", MOMENT)
            entry.create_system, entry.external_attr = UNIX, PERMISSIONS
            archive.writestr(entry, contents[name])
