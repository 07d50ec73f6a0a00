"""Tar shards in WebDataset's layout, each written once, their manifest, and the formats of their files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.intensity import Window, window_by_name
from common.errors import UserError
from common.files import atomic_write, read_json, write_json
from common.provenance import Provenance, png_text

MANIFEST, PROGRESS = "manifest.jsonl", "progress"
DESCRIPTION = "composites.json"
"""Lies in the shards' folder and says what they hold and what they were made of."""
CACHED_INDEXES = 64
"""Shards whose members' offsets are remembered; some 300 kB each for 1 000 samples."""
FORMATS = {"npy": "npy", "png": "png", "png16": "png", "nifti": "nii.gz"}
"""File suffix of each format."""
WINDOWS = {"png": "lung", "png16": "wide"}
"""HU window of the PNGs by default; ``wide`` in 16 bits loses nothing."""
WHITE = {"png": 255, "png16": 65535}
COMPRESSION = 1
"""Of PNG and gzip; higher levels take three times as long and save 5 %."""


@dataclass(frozen=True)
class FileFormat:
    """Encodes images and masks as files, and decodes them. The same array gives the same bytes.

    Example:
        >>> png = FileFormat("png", window=(-1000, 400))
        >>> content = png.encode_image(np.array([[-1000, -300], [400, 400]], np.int16), spacing_mm=0.7)
        >>> png.decode_image(content).tolist()  # to the nearest of 256 gray values
        [[-1000, -297], [400, 400]]

    Args:
        name: a key of `FORMATS`. ``npy``: int16 HU. ``png``, ``png16``: 8 or 16 bits, 0 at the lower and the
            largest value at the upper end of a HU window. ``nifti``: int16 HU with the pixel spacing.
            Masks are uint8 in all of them.
        window: of the PNGs, a preset's name or (lower, upper) in HU; None for `WINDOWS`.
    Raises:
        UserError: an unknown name, or a window for a format that keeps HU.
    """

    name: str = "npy"
    window: str | Window | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.name not in FORMATS:
            raise UserError(f"format {self.name!r} is unknown; choose {', '.join(FORMATS)}")
        if self.window is not None and self.name not in WINDOWS:
            raise UserError(f"format {self.name} keeps HU as they are; leave the window out")

    @property
    def suffix(self) -> str:
        """File suffix, without its first dot."""
        return FORMATS[self.name]

    @property
    def hu_window(self) -> Window | None:
        """HU window of a PNG; None where HU are kept."""
        if self.name not in WINDOWS:
            return None
        return window_by_name(WINDOWS[self.name] if self.window is None else self.window)

    def encode_image(self, hu: NDArray[np.int16], spacing_mm: float) -> bytes:
        """A file's content for an image (H, W) in HU. PNG and NIfTI are marked as synthetic."""
        window = self.hu_window
        if window is None:
            return self._encode_array(hu, spacing_mm)
        unit = np.clip((hu - np.float32(window.lower)) / np.float32(window.width), 0, 1)
        dtype = np.uint8 if self.name == "png" else np.uint16
        return _png(np.rint(unit * np.float32(WHITE[self.name])).astype(dtype))

    def encode_mask(self, labels: NDArray[np.uint8], spacing_mm: float) -> bytes:
        """A file's content for a mask (H, W)."""
        return self._encode_array(labels, spacing_mm) if self.hu_window is None else _png(labels)

    def decode_image(self, content: bytes) -> NDArray[np.int16]:
        """HU (H, W) of what `encode_image` gave; of a PNG rounded, and clipped to its window."""
        array, window = self._decode(content), self.hu_window
        if window is None:
            return array
        unit = array.astype(np.float64) / WHITE[self.name]
        return np.rint(unit * window.width + window.lower).astype(np.int16)

    def decode_mask(self, content: bytes) -> NDArray[np.uint8]:
        """The mask (H, W) of what `encode_mask` gave."""
        return self._decode(content)

    def _encode_array(self, array: np.ndarray, spacing_mm: float) -> bytes:
        if self.name == "nifti":
            return _nifti(array, spacing_mm)
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    def _decode(self, content: bytes) -> np.ndarray:
        if self.name == "npy":
            return np.load(io.BytesIO(content), allow_pickle=False)
        if self.name == "nifti":
            image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
            return np.ascontiguousarray(np.asarray(image.dataobj)[..., 0].T)
        with Image.open(io.BytesIO(content)) as picture:
            return np.asarray(picture)


@lru_cache(maxsize=1)
def made_by() -> Provenance:
    """The provenance of composites: this bundle and its version, no single model."""
    return Provenance.of("lung_two_stage")


def _png(array: np.ndarray) -> bytes:
    file, text = io.BytesIO(), png_text(made_by().text, made_by().maker)
    Image.fromarray(array).save(file, "png", compress_level=COMPRESSION, pnginfo=text)
    return file.getvalue()


def _nifti(array: np.ndarray, spacing_mm: float) -> bytes:
    """One axial slice: columns run to the patient's left, rows to the back."""
    affine = np.diag([-spacing_mm, -spacing_mm, 1.0, 1.0])
    image = nib.Nifti1Image(array.T[..., None], affine, dtype=array.dtype)
    made_by().mark(image.header)
    return gzip.compress(image.to_bytes(), compresslevel=COMPRESSION, mtime=0)


@dataclass(frozen=True)
class Entry:
    """A line of the manifest: a shard's file name, its first sample, sample count, SHA-256 and size."""

    name: str
    first: int
    count: int
    sha256: str
    bytes: int


class Member(NamedTuple):
    """A sample of a shard: its files by suffix, e.g. ``image.npy``."""

    number: int
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes that it takes in a tar file."""
        block = tarfile.BLOCKSIZE
        return sum(block + -(-len(content) // block) * block for content in self.files.values())

    def add_to(self, tar: tarfile.TarFile) -> None:
        """Appends the files, without times and owners, so that equal samples give equal bytes."""
        for suffix, content in self.files.items():
            info = tarfile.TarInfo(f"{_key(self.number)}.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _key(number: int) -> str:
    """What the names of a sample's files begin with."""
    return f"{number:09d}"


@dataclass(frozen=True)
class ShardSet:
    """``count`` samples, ``per_shard`` in a file: ``000000.tar`` holds samples 0 to ``per_shard`` - 1.

    A shard is whole or absent. Each one leaves its entry in ``progress/``; when all are there, they become
    ``manifest.jsonl``. Processes that write different shards share nothing else, so that a killed one costs
    no more than the shards that it was writing.

    Example:
        >>> shards = ShardSet(Path("out"), count=2500, per_shard=1000)
        >>> len(shards), shards.numbers(2)
        (3, range(2000, 2500))

    Args:
        folder: of the shards.
        count: number of samples.
        per_shard: samples in a file.
    """

    folder: Path
    count: int
    per_shard: int

    def __len__(self) -> int:
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
            UserError: the disk is full or the folder cannot be written; existing files stay whole.
        """
        name, numbers = self._name(shard), self.numbers(shard)
        with atomic_write(self.folder / name) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
                for sample in samples:
                    sample.add_to(tar)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                entry = Entry(name, numbers.start, len(numbers), digest, file.tell())
        write_json(self._mark(shard), asdict(entry))
        return entry

    def finish(self) -> bool:
        """Writes the manifest if no shard is missing, and says whether it is complete.

        Of several processes the last one writes it; if two do, they write the same.
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
        """The entry of a shard whose file exists in its full size."""
        mark = self._mark(shard)
        entry = Entry(**read_json(mark)) if mark.is_file() else self._finished.get(shard)
        path = self.folder / self._name(shard)
        if entry is None or not path.is_file() or path.stat().st_size != entry.bytes:
            return None
        return entry

    @cached_property
    def _finished(self) -> dict[int, Entry]:
        """The entries of an earlier run's manifest."""
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
        return [Entry(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run the same command again") from error


class Composite(NamedTuple):
    """A slice with nodules.

    Args:
        image: (H, W) int16 HU.
        mask: (H, W) uint8: 0 background, else the category's index in ``Composites.categories`` + 1, or 1 if
            there are no categories.
        record: where it comes from, see `bundles.lung_two_stage.composition.render.Renderer.record`.
    """

    image: NDArray[np.int16]
    mask: NDArray[np.uint8]
    record: dict[str, Any]


class Composites:
    """A folder of finished shards as a map-style and iterable data set of `Composite`.

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
        self.format = FileFormat(self.description["format"], self.description["window_hu"])

    def __len__(self) -> int:
        return sum(entry.count for entry in self.entries)

    def __getitem__(self, number: int) -> Composite:
        """Reads one composite without reading others.

        Raises:
            UserError: its shard is missing or damaged.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        path = self.folder / self.entries[int(number) // self.entries[0].count].name
        suffix = self.format.suffix
        try:
            offsets = _offsets(path, path.stat().st_mtime_ns)
            with path.open("rb") as file:
                image, mask, record = (
                    os.pread(file.fileno(), *offsets[f"{_key(number)}.{name}"])
                    for name in (f"image.{suffix}", f"mask.{suffix}", "json")
                )
        except (OSError, tarfile.TarError, KeyError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); run the command that made it again"
            ) from error
        return Composite(self.format.decode_image(image), self.format.decode_mask(mask), json.loads(record))

    def __iter__(self) -> Iterator[Composite]:
        return (self[number] for number in range(len(self)))

    def shard(self, entry: Entry) -> Iterator[Composite]:
        """The composites of one shard, in order.

        Raises:
            UserError: the file is missing or damaged.
        """
        return (self[number] for number in range(entry.first, entry.first + entry.count))


@lru_cache(maxsize=CACHED_INDEXES)
def _offsets(path: Path, _changed: int) -> dict[str, tuple[int, int]]:
    """Size and start of each file in a tar, by name."""
    with tarfile.open(path, "r:") as tar:
        return {member.name: (member.size, member.offset_data) for member in tar}
