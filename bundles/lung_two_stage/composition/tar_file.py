"""A tar file whose bytes depend on its members alone."""

from __future__ import annotations

import hashlib
import tarfile
from typing import BinaryIO


class TarWriter:
    """Writes members one after the other, counts and hashes what it writes.

    Plain POSIX headers (ustar) without times and owners, as `tarfile` makes them. The blocks are written
    here, so that the hash costs no second reading and a member no copies.

    Args:
        file: open for writing, empty.

    Attributes:
        size: bytes written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file, self._hash = file, hashlib.sha256()

    def add(self, name: str, content: bytes) -> None:
        """A regular file ``name`` (at most 100 bytes) that anyone may read."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        self._write(content)
        self._pad(tarfile.BLOCKSIZE)

    def close(self) -> None:
        """The end of the archive: two empty blocks, filled up to a record. Leaves the file open."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._pad(tarfile.RECORDSIZE)

    @property
    def sha256(self) -> str:
        """Of all that was written."""
        return self._hash.hexdigest()

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def _pad(self, unit: int) -> None:
        self._write(bytes(-self.size % unit))
