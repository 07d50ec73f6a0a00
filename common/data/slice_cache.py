"""A cache of slices on disk: each volume is converted once to a ``.npy`` array and a JSON record.

`SliceCache` converts images to uint16 and label files to uint8 slices of one `Geometry`; `SliceReader` reads
them in any order, at memory speed. The record holds the settings and a hash of the source's content; a file
is converted again only if one of these changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import numpy as np
from filelock import FileLock, Timeout

from common.data.image_io import for_each
from common.data.labels import LabelSet
from common.data.samples import Sample, is_volume, stem
from common.data.slice_geometry import (
    Frame,
    Geometry,
    Request,
    from_planes,
    image_slices,
    label_slices,
    planes_shape,
    read_source,
)
from common.data.volume_io import (
    Grid,
    check_beside_picture,
    check_same_place,
    display_affine,
    source_parts,
    to_display,
    volume_shape,
)
from common.errors import UserError, read_errors
from common.files import atomic_write, remove_leftovers, write_json

FORMAT = 2
"""To be increased whenever the same source and settings give other arrays, or are now refused."""
LOCK = "converting.lock"
HEADER_BYTES = 128
"""What `np.save` writes before the data of a 3-D array."""
MOST_OPEN = 128
"""Files that a reader keeps open."""
DISK_RESERVE = 16e6
"""Bytes to leave free for the records and the file system's tables."""
CHUNK = 2**20
PATIENTS_SHOWN = 5
_SCALE = np.float32(1 / 65535)  # 65535 becomes exactly 1

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class CachedVolume:
    """A converted file: where its array is and how it was made; small and picklable.

    Attributes:
        array: the ``.npy`` file (N, S, S): images uint16 (0..65535 stands for 0..1), labels uint8 codes.
        source: the file it was made from.
        kind: ``image`` or ``label``.
        geometry: how it was cut.
        orientation: transform that brought a 2-D picture upright.
        shape: (H, W, D) of the source in display order (rows to posterior, columns to the left, slices from
            the feet), upright; a picture has D = 1.
        affine: 4 x 4, the source's own (file voxels to world mm); identity for pictures.
        spacing: mm along H, W, D.
        lower, upper: what 0 and 1 stand for, in HU or in the file's own values.
        is_hu: whether these are HU; never for percentiles.
        values: of labels: code c in the array stands for ``values[c]``; code 0 is the background, value 0.
        counts: of labels: int32 (N, values), the pixels of each value in each stored slice.
    """

    array: Path
    source: Path
    kind: str
    geometry: Geometry
    orientation: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    lower: float
    upper: float
    is_hu: bool
    values: tuple[int, ...]
    counts: np.ndarray = field(compare=False, repr=False)

    @property
    def depth(self) -> int:
        """N, the number of stored slices."""
        return planes_shape(self.shape, self.geometry.axis)[0]

    @property
    def slice_mm(self) -> float:
        """Distance of two stored slices in mm."""
        along_rows, along_columns, along_slices = self.spacing
        return {"axial": along_slices, "coronal": along_rows, "sagittal": along_columns}[self.geometry.axis]

    @property
    def grid(self) -> Grid:
        """Where the voxels of the source lie."""
        affine = np.array(self.affine)
        file_shape = [self.shape[int(axis)] for axis in to_display(affine)[:, 0]]
        return Grid(self.source, self.shape, display_affine(affine, file_shape), affine)

    def to_source(self, stack: np.ndarray, nearest: bool = False, fill: float = 0.0) -> np.ndarray:
        """Converts slices (N, S, S) back to a volume (H, W, D) in display order.

        Args:
            stack: N slices, as they are stored or as a network made them.
            nearest: for labels; the type stays. Otherwise linear, float32.
            fill: value where the source was cropped away.
        Raises:
            ValueError: another number or size of slices.
        """
        expected = (self.depth, self.geometry.size, self.geometry.size)
        if stack.shape != expected:
            raise ValueError(f"{self.source}: a stack of shape {stack.shape} where {expected} was expected")
        frame = Frame.of(self.geometry, self.shape, self.spacing)
        back = frame.label_back if nearest else frame.image_back
        planes = np.stack([back(square, fill) for square in stack])  # (N, h, w)
        return np.ascontiguousarray(from_planes(planes, self.geometry.axis))


class SliceReader:
    """Reads single slices of cached volumes; can be pickled and used after a fork. Each thread needs its own.

    It uses ``pread`` and not `np.memmap`, because pages of mapped files count as memory of the process. The
    files used last stay open.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._raw = np.empty(0, np.uint16)

    def image(self, volume: CachedVolume, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Reads slice ``index`` of an image as float32 (S, S) in [0, 1], into ``out`` if given.

        Raises:
            IndexError: no such slice.
            UserError: the array is missing or cut short.
        """
        size = volume.geometry.size
        if self._raw.size != size * size:
            self._raw = np.empty(size * size, np.uint16)
        self._read(volume, index, self._raw)
        result = np.empty((size, size), np.float32) if out is None else out
        result[...] = self._raw.reshape(size, size)
        result *= _SCALE  # in one ufunc with the copy it takes three times as long
        return result

    def label(self, volume: CachedVolume, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Reads slice ``index`` of a label file as uint8 codes (S, S), into ``out`` (contiguous) if given.

        Raises:
            IndexError: no such slice.
            UserError: the array is missing or cut short.
        """
        size = volume.geometry.size
        result = np.empty((size, size), np.uint8) if out is None else out
        self._read(volume, index, result)
        return result

    def __reduce__(self) -> tuple[type[SliceReader], tuple[()]]:
        return SliceReader, ()

    def __del__(self) -> None:
        for handle in self._open.values():
            os.close(handle)

    def _read(self, volume: CachedVolume, index: int, into: np.ndarray) -> None:
        if not 0 <= index < volume.depth:
            raise IndexError(f"{volume.source}: slice {index} of {volume.depth}")
        handle = self._handle(volume.array)
        if read_into(into, handle, HEADER_BYTES + index * into.nbytes) != into.nbytes:
            raise UserError(f"{volume.array}: cut short; delete it and run again to convert it again")

    def _handle(self, path: Path) -> int:
        handle = self._open.get(path)
        if handle is not None:
            self._open.move_to_end(path)
            return handle
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); run again to convert it") from error
        self._open[path] = handle
        if len(self._open) > MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return handle


@dataclass(frozen=True)
class Job:
    """One request under one geometry; equal jobs have equal names."""

    request: Request
    geometry: Geometry

    @property
    def source(self) -> Path:
        """The absolute path of the file."""
        return Path(os.path.abspath(self.request.path))

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that determine the array of a given content; without those that labels ignore."""
        geometry, intensity = asdict(self.geometry), self.request.intensity
        if self.geometry.spacing is not None or self.geometry.fit == "stretch":
            del geometry["fit"]  # as in records from before there was a choice
        if self.request.kind == "label":
            geometry, intensity = {**geometry, "interpolation": "nearest"}, None
        return {
            "format": FORMAT,
            "source": str(self.source),
            "kind": self.request.kind,
            "geometry": geometry,
            "intensity": None if intensity is None else asdict(intensity),
            "orientation": self.request.orientation,
            **({"hu_offset": self.request.hu_offset} if self.request.in_hu else {}),
            **self._values,
        }

    @property
    def _values(self) -> dict[str, Any]:
        """The settings on the file's values, where given: older records have none."""
        request = self.request
        values: dict[str, Any]
        if request.kind == "label":
            values = {"mask_threshold": request.mask_threshold, "ignored": list(request.ignored) or None}
        else:
            limits = request.source_range if request.in_hu else None
            values = {"source_range": None if limits is None else list(limits)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def name(self) -> str:
        """File name of the record without suffix: the source's name and a hash of the settings."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"{quote(stem(self.source), safe='')[:60]}-{self.request.kind}-{digest[:12]}"

    @property
    def array_bytes(self) -> int:
        """Size of the array, from the header of the source; 0 if that is unreadable."""
        try:
            shape = volume_shape(self.source) if is_volume(self.source) else (1, 1, 1)
        except UserError:
            return 0
        return self._bytes(planes_shape(shape, self.geometry.axis)[0])

    def _bytes(self, slices: int) -> int:
        return slices * self.geometry.size**2 * (1 if self.request.kind == "label" else 2)

    def convert(self, folder: Path) -> dict[str, Any]:
        """Converts the file: writes the array, with a hash of the content in its name, then the record."""
        parts, content = stamps(self.source), content_hash(self.source)
        source = read_source(self.request, self.geometry)
        cut = label_slices if self.request.kind == "label" else image_slices
        slices = cut(source, self.geometry, self.request)
        array = f"{self.name}-{content[:8]}.npy"
        with atomic_write(folder / array) as temporary:
            np.save(temporary, slices.array)
        record = {
            "settings": self.settings,
            "array": array,
            "parts": parts,
            "sha256": content,
            "shape": list(source.array.shape),
            "affine": source.affine.tolist(),
            "spacing": list(source.spacing),
            "lower": slices.lower,
            "upper": slices.upper,
            "is_hu": slices.is_hu,
            "values": list(slices.values),
            "counts": slices.counts.tolist(),
        }
        write_json(folder / f"{self.name}.json", record)
        for path in folder.glob(f"{self.name}-????????.npy"):  # of earlier content
            if path.name != array:
                with suppress(FileNotFoundError):
                    path.unlink()
        return record

    def volume(self, record: dict[str, Any], folder: Path) -> CachedVolume | None:
        """The volume of a record; None if the array is not whole or the settings differ."""
        if record.get("settings") != self.settings:
            return None
        height, width, depth = record["shape"]
        slices = planes_shape((height, width, depth), self.geometry.axis)[0]
        volume = CachedVolume(
            array=folder / record["array"],
            source=self.source,
            kind=self.request.kind,
            geometry=self.geometry,
            orientation=self.request.orientation,
            shape=(height, width, depth),
            affine=tuple(tuple(row) for row in record["affine"]),
            spacing=(record["spacing"][0], record["spacing"][1], record["spacing"][2]),
            lower=record["lower"],
            upper=record["upper"],
            is_hu=record["is_hu"],
            values=tuple(record["values"]),
            counts=np.array(record["counts"], np.int32).reshape(slices, len(record["values"])),
        )
        whole = volume.array.is_file() and volume.array.stat().st_size == HEADER_BYTES + self._bytes(slices)
        return volume if whole else None


def stamps(source: Path) -> list[list[Any]]:
    """[name, bytes, modification time in ns] of every file of a volume; empty if it is unreadable."""
    try:
        stats = [(part.name, part.stat()) for part in source_parts(source)]
    except OSError:
        return []
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def content_hash(source: Path) -> str:
    """SHA-256 of the names, sizes and contents of all files of a volume.

    Raises:
        UserError: unreadable.
    """
    digest = hashlib.sha256()
    with read_errors(source):
        for part in source_parts(source):
            digest.update(f"{part.name} {part.stat().st_size}\n".encode())
            with part.open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
    return digest.hexdigest()


def read_record(path: Path) -> dict[str, Any] | None:
    """Reads a record; None if there is no usable one, so that the file is converted again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def read_into(into: np.ndarray, handle: int, offset: int) -> int:
    """Fills an array from an open file and returns the number of bytes; macOS 10 has no ``preadv``."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [into.data], offset)
    content = os.pread(handle, into.nbytes, offset)
    into.data.cast("B")[: len(content)] = content
    return len(content)


def usable_cores() -> int:
    """How many cores this process may use; macOS and Windows have no affinity, there all count."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SliceCache:
    """A folder of converted files, all with one geometry.

    Args:
        folder: created if missing; several data sets and settings may share it.
        geometry: how the slices are cut.
        workers: number of threads that convert, each with one volume in memory; None for one per core.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from common.data.slice_geometry import Intensity
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "slice.png"
        ...     Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save(path)
        ...     cache = SliceCache(Path(folder) / "cache", Geometry(size=2), workers=1)
        ...     (volume,) = cache.convert([Request(path, "image", Intensity())])
        ...     SliceReader().image(volume, 0).round(2).tolist()
        [[0.0, 0.20000000298023224], [0.4000000059604645, 1.0]]
    """

    def __init__(
        self, folder: str | os.PathLike[str], geometry: Geometry, workers: int | None = None
    ) -> None:
        self.folder, self.geometry = Path(folder), geometry
        self.workers = workers or usable_cores()

    def convert(self, requests: Sequence[Request]) -> list[CachedVolume]:
        """The converted files, in the order of the requests; missing ones are converted, on all cores.

        A file is unchanged if size and time, or else its content, are those on record. Only one process
        converts at a time. Files that were converted before a bad one was found are kept.

        Raises:
            UserError: a bad file, a full disk, a folder that cannot be written.
        """
        jobs = [Job(request, self.geometry) for request in requests]
        done = {job.name: self._trusted(job) for job in jobs}
        missing = {job.name: job for job in jobs if done[job.name] is None}
        if missing:
            done |= self._convert(list(missing.values()))
        return [volume for job in jobs if (volume := done[job.name]) is not None]

    def _convert(self, missing: list[Job]) -> dict[str, CachedVolume | None]:
        _make_folder(self.folder)
        with exclusive(self.folder):
            # Another process may have converted them while this one waited.
            unchanged = in_parallel(missing, self._unchanged, self.workers, "checking")
            rest = [job for job, volume in zip(missing, unchanged, strict=True) if volume is None]
            _check_space(self.folder, rest)
            converted = iter(in_parallel(rest, self._converted, self.workers, "converting"))
            return {
                job.name: next(converted) if volume is None else volume
                for job, volume in zip(missing, unchanged, strict=True)
            }

    def _known(self, job: Job) -> tuple[dict[str, Any], CachedVolume | None]:
        """The record of a job, and its volume, perhaps of an earlier content of the source."""
        record = read_record(self.folder / f"{job.name}.json") or {}
        return record, job.volume(record, self.folder)

    def _trusted(self, job: Job) -> CachedVolume | None:
        """The volume if size and time of the source are those on record."""
        record, volume = self._known(job)
        return volume if volume is not None and record["parts"] == stamps(job.source) else None

    def _unchanged(self, job: Job) -> CachedVolume | None:
        """The volume if the content of the source is that on record; updates the times there."""
        (record, volume), parts = self._known(job), stamps(job.source)
        if volume is None or not parts:
            return None
        if record["parts"] != parts:
            if content_hash(job.source) != record["sha256"]:
                return None
            write_json(self.folder / f"{job.name}.json", {**record, "parts": parts})
        return volume

    def _converted(self, job: Job) -> CachedVolume:
        record = job.convert(self.folder)
        volume = job.volume(record, self.folder)
        if volume is None:
            raise UserError(f"{self.folder / record['array']}: was changed while it was written; run again")
        return volume


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another --store_dir") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written; choose another --store_dir")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, and removes half-written files of killed processes.

    On a file system without locks two processes may convert the same file: each is renamed into place when
    whole, so the result is the same.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: waiting for another process that converts there", folder)
        lock.acquire()
    except (OSError, NotImplementedError):
        logger.debug("%s: no locks on this file system", folder)
    try:
        if lock.is_locked:
            remove_leftovers(folder)
        yield
    finally:
        lock.release()


def in_parallel(
    items: Sequence[Item], action: Callable[[Item], Result], workers: int, title: str
) -> list[Result]:
    """Results of ``action`` for all items, in order, computed in threads with a progress bar.

    Raises:
        UserError: the first bad file with the number of others, see `common.data.image_io.for_each`.
    """
    pool = ThreadPoolExecutor(max(1, min(workers, len(items))))
    futures = [pool.submit(action, item) for item in items]
    try:
        return for_each(futures, lambda future: future.result(), title)
    finally:
        pool.shutdown(cancel_futures=True)


def _check_space(folder: Path, jobs: Sequence[Job]) -> None:
    """Compares the size of the arrays with the free disk space."""
    needed, free = sum(job.array_bytes for job in jobs) + DISK_RESERVE, shutil.disk_usage(folder).free
    if jobs and needed > free:
        files = f"{len(jobs)} file{'' if len(jobs) == 1 else 's'}"
        raise UserError(
            f"{folder}: converting {files} needs {needed / 1e6:.0f} MB but {free / 1e6:.0f} MB are free; "
            "free some space or choose another --store_dir"
        )


class CachedPair(NamedTuple):
    """A converted image and its condition.

    Attributes:
        sample: the files; ``index`` None.
        image, label: both converted; ``label`` is an image too if the condition is one.
        table: uint8, the class of each code of the label; None if the condition is an image.
    """

    sample: Sample
    image: CachedVolume
    label: CachedVolume
    table: np.ndarray | None

    @property
    def is_volume(self) -> bool:
        """Whether the slices have an index; a picture is one slice without."""
        return is_volume(self.sample.image)

    def foreground(self) -> np.ndarray:
        """Number of pixels of any class in each slice (N,); without classes the largest integer."""
        if self.table is None:
            return np.full(self.image.depth, np.iinfo(np.int64).max)
        return np.asarray(self.label.counts)[:, self.table > 0].sum(axis=1, dtype=np.int64)


def cached_pair(
    sample: Sample, image: CachedVolume, label: CachedVolume, label_set: LabelSet | None
) -> CachedPair:
    """Joins the two converted files of a sample.

    Raises:
        UserError: the two differ in shape or affine, or the label has values that ``label_set`` refuses.
    """
    check_same_grid(image, label)
    table = None if label_set is None else label_set.table(label.values, label.source)
    return CachedPair(sample, image, label, table)


def check_same_grid(image: CachedVolume, label: CachedVolume) -> None:
    """Refuses two files whose voxels lie in different places, see `common.data.volume_io`."""
    if is_volume(image.source) and not is_volume(label.source):
        check_beside_picture(image.grid, label.source)
    elif is_volume(label.source) and not is_volume(image.source):
        check_beside_picture(label.grid, image.source)
    else:
        check_same_place(image.grid, label.grid)


def selected_slices(
    pairs: Sequence[CachedPair], min_pixels: int, every: int, classes: Sequence[str]
) -> np.ndarray:
    """The slices to use: int32 (N, 2), index of the pair and of the slice along the cut axis.

    Args:
        pairs: what to choose from.
        min_pixels: keep slices with at least this many pixels of the classes, at the stored size; 0 for all.
        every: keep every n-th slice of each volume, counted from its first.
        classes: their names, for the error.
    Raises:
        UserError: nothing is left; says which filter removed the slices.
    """
    if every < 1 or min_pixels < 0:
        raise UserError(f"every {every} must be at least 1 and min_pixels {min_pixels} at least 0")
    total, thinned, kept = 0, 0, []
    for number, pair in enumerate(pairs):
        slices = np.arange(0, pair.image.depth, every, dtype=np.int32)
        total, thinned = total + pair.image.depth, thinned + len(slices)
        slices = slices[pair.foreground()[slices] >= min_pixels]
        kept.append(np.stack([np.full_like(slices, number), slices], axis=1))
    if not any(len(slices) for slices in kept):
        where = pairs[0].sample.image.parent if pairs else "the data set"
        patients = sorted({pair.sample.patient for pair in pairs})
        shown = ", ".join(patients[:PATIENTS_SHOWN]) + (", ..." if len(patients) > PATIENTS_SHOWN else "")
        raise UserError(
            f"{where}: no slices left of {total} ({shown}): {thinned} after every={every}, none of them with "
            f"min_pixels={min_pixels} pixels of {', '.join(classes) or 'a class'}; lower min_pixels or "
            "choose other --labels"
        )
    return np.concatenate(kept)
