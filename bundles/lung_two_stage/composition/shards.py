"""Samples in tar files of equal counts (WebDataset's layout), each written once, and their manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.composition.settings import Format
from common.errors import UserError
from common.files import atomic_write, read_json, write_json


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


MANIFEST, PROGRESS = "manifest.jsonl", "progress"


@dataclass(frozen=True)
class Entry:
    """One line of the manifest: a shard's file name, the number of its first sample, how many, its bytes."""

    name: str
    first: int
    count: int
    sha256: str
    bytes: int


class Member(NamedTuple):
    """What a shard holds of one sample: files by suffix, e.g. ``image.npy``."""

    number: int
    files: Mapping[str, bytes]

    @property
    def key(self) -> str:
        """What the names of the sample's files begin with."""
        return f"{self.number:09d}"


@dataclass(frozen=True)
class ShardSet:
    """``count`` samples, ``per_shard`` in a file: ``000000.tar`` holds samples 0 to ``per_shard`` - 1.

    A shard is whole or absent. Each one leaves its entry in ``progress/``; when all are there, they become
    ``manifest.jsonl``. Processes that write different shards share nothing else, so one that is killed at
    any point costs no more than the shards it was at.
    """

    folder: Path
    count: int
    per_shard: int

    def __len__(self) -> int:
        """The number of shards."""
        return -(-self.count // self.per_shard)

    def numbers(self, shard: int) -> range:
        """The samples of a shard."""
        first = shard * self.per_shard
        return range(first, min(first + self.per_shard, self.count))

    def missing(self) -> list[int]:
        """The shards still to be written: without an entry, or whose file is gone or has another size."""
        return [shard for shard in range(len(self)) if self._entry(shard) is None]

    def write(self, shard: int, samples: Iterable[Member]) -> Entry:
        """Writes one shard; ``samples`` are those of its `numbers`, in order.

        Raises:
            UserError: the disk is full or the folder cannot be written; what is there stays whole.
        """
        name = self._name(shard)
        with atomic_write(self.folder / name) as temporary, temporary.open("wb") as file:
            tar = TarWriter(file)
            for sample in samples:
                for suffix, content in sample.files.items():
                    tar.add(f"{sample.key}.{suffix}", content)
            tar.close()
            file.flush()
        numbers = self.numbers(shard)
        entry = Entry(name, numbers.start, len(numbers), tar.sha256, tar.size)
        write_json(self._mark(shard), asdict(entry))
        return entry

    def finish(self) -> bool:
        """Writes the manifest where no shard is missing, and says whether it is there.

        Of several processes whichever ends last does it; should two do it, they write the same.
        """
        entries = [self._entry(shard) for shard in range(len(self))]
        if None in entries:
            return False
        lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries if entry is not None)
        path = self.folder / MANIFEST
        if not path.is_file() or path.read_text(encoding="utf-8") != lines:
            with atomic_write(path) as temporary:
                temporary.write_text(lines, encoding="utf-8")
        shutil.rmtree(self.folder / PROGRESS, ignore_errors=True)
        return True

    def _entry(self, shard: int) -> Entry | None:
        """What is known of a shard that is there."""
        mark = self._mark(shard)
        found = Entry(**read_json(mark)) if mark.is_file() else self._earlier.get(shard)
        path = self.folder / self._name(shard)
        if found is None or not path.is_file() or path.stat().st_size != found.bytes:
            return None
        return found

    @cached_property
    def _earlier(self) -> dict[int, Entry]:
        """The entries of a manifest that an earlier run finished."""
        if not (self.folder / MANIFEST).is_file():
            return {}
        return {entry.first // self.per_shard: entry for entry in read_manifest(self.folder)}

    def _name(self, shard: int) -> str:
        return f"{shard:06d}.tar"

    def _mark(self, shard: int) -> Path:
        return self.folder / PROGRESS / f"{shard:06d}.json"


def read_manifest(folder: Path) -> list[Entry]:
    """The entries of a finished set.

    Raises:
        UserError: there is no manifest yet, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{path}: not there; the shards are not finished, run the same command again")
    try:
        entries = [Entry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run the same command again") from error
    return entries


DESCRIPTION = "composites.json"
"""Beside the shards: what they hold and what they were made of."""
OPEN_INDEXES = 64
"""Shards whose members' places are remembered; some 300 kB each of 1 000 samples."""


class Composite(NamedTuple):
    """A slice with nodules.

    Args:
        image: (H, W) int16 HU.
        mask: (H, W) uint8: 0 none, else the category's place in ``Composites.categories`` + 1; 1 where there
            are no categories.
        record: where it comes from, see `bundles.lung_two_stage.composition.render.Renderer.record`.
    """

    image: NDArray[np.int16]
    mask: NDArray[np.uint8]
    record: dict[str, Any]


class Composites:
    """A folder of finished shards; a map-style data set, and an iterable.

    Args:
        folder: holds ``manifest.jsonl``, ``composites.json`` and the shards.

    Attributes:
        entries: the manifest's lines, one a shard.
        categories: names of the nodules' categories; empty where there are none.
        image_size: (H, W).
        format: of the files.
        description: all of ``composites.json``.
    Raises:
        UserError: not finished yet, or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.entries: list[Entry] = read_manifest(self.folder)
        self.description: dict[str, Any] = read_json(self.folder / DESCRIPTION)
        self.categories: list[str] = self.description["categories"]
        self.image_size: tuple[int, int] = tuple(self.description["image_size"])
        self.format = Format(self.description["format"], self.description["window_hu"])
        self._per_shard = self.entries[0].count

    def __len__(self) -> int:
        return sum(entry.count for entry in self.entries)

    def __getitem__(self, number: int) -> Composite:
        """The composite of that number, without reading others.

        Raises:
            UserError: its shard is missing or damaged.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        entry = self.entries[int(number) // self._per_shard]
        path = self.folder / entry.name
        with _explained(path), path.open("rb") as file:
            places = _places(path, path.stat().st_mtime_ns)[f"{number:09d}"]
            return self._composite({suffix: _bytes_at(file, *place) for suffix, place in places.items()})

    def __iter__(self) -> Iterator[Composite]:
        return self.part(0, 1)

    def part(self, part: int, parts: int) -> Iterator[Composite]:
        """The composites of every ``parts``-th shard from shard ``part`` on: for processes and workers."""
        for entry in self.entries[part::parts]:
            yield from self.shard(entry)

    def shard(self, entry: Entry) -> Iterator[Composite]:
        """The composites of one shard, in order.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.folder / entry.name
        try:
            with tarfile.open(path, "r|") as tar:
                files: dict[str, bytes] = {}
                for member in tar:
                    files[member.name.partition(".")[2]] = _content(tar, member)
                    if len(files) == len(self._suffixes):
                        yield self._composite(files)
                        files = {}
        except (OSError, tarfile.TarError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); run the command that made it again"
            ) from error

    @property
    def _suffixes(self) -> tuple[str, str, str]:
        return f"image.{self.format.suffix}", f"mask.{self.format.suffix}", "json"

    def _composite(self, files: dict[str, bytes]) -> Composite:
        image, mask, record = (files[suffix] for suffix in self._suffixes)
        return Composite(self.format.read_image(image), self.format.read_mask(mask), json.loads(record))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the command that made it again") from error


@lru_cache(maxsize=OPEN_INDEXES)
def _places(path: Path, _changed: int) -> dict[str, dict[str, tuple[int, int]]]:
    """For each sample's key and each of its files where it begins and how long it is."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            found.setdefault(key, {})[suffix] = member.offset_data, member.size
    return found


def _bytes_at(file: Any, start: int, size: int) -> bytes:
    file.seek(start)
    return bytes(file.read(size))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()
