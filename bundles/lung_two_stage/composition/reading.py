"""Composites from their shards: all of them in order, a process's part, or any one by its number.

for image, mask, record in Composites("work/composites"):   # int16 HU (H, W), uint8 (H, W), provenance
    ...
image, mask, record = Composites("work/composites")[123_456]
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.composition.formats import Format
from bundles.lung_two_stage.composition.shards import Entry, read_manifest
from common.errors import UserError
from common.files import read_json

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
        record: where it comes from, see `bundles.lung_two_stage.composition.rendering.Renderer.record`.
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
