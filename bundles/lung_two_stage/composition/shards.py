"""Samples in tar files of equal counts (WebDataset's layout), each written once, and their manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from bundles.lung_two_stage.composition.tar_file import TarWriter
from common.errors import UserError
from common.files import atomic_write, read_json, write_json

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
