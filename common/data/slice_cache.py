"""The store: converts what is missing or has changed, and says where the rest lies."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar
from urllib.parse import quote

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from tqdm import tqdm

from common.data.image_io import MOST_PROBLEMS, PICTURE_SUFFIXES, read_label_picture, read_picture, summary_of
from common.data.intensity import Window, to_unit
from common.data.labels import LabelSet
from common.data.samples import Sample, orient, stem
from common.data.slice_geometry import (
    Frame,
    Geometry,
    Intensity,
    Request,
    from_planes,
    planes_shape,
    to_planes,
)
from common.data.volume_io import DISPLAY_AXES, VOLUME_SUFFIXES, Volume, is_volume, source_parts, volume_shape
from common.errors import UserError, read_errors
from common.files import atomic_write, remove_leftovers, write_json

MOST_LABELS = 255
MR_HINT = "; for MR set percentiles instead of a window"
_WHITE = np.float32(65535)


@dataclass(frozen=True)
class Source:
    """A file's voxels (H, W, D) in display order with their place and meaning, see `Volume`.

    ``offset`` is to be added to ``array`` to get HU.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]
    is_hu: bool
    source_range: tuple[float, float]
    has_spacing: bool
    offset: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, D)."""
        height, width, depth = self.array.shape
        return height, width, depth


@dataclass(frozen=True)
class Slices:
    """Converted slices (N, S, S), uint16 or uint8, with what `CachedVolume` says of them."""

    array: np.ndarray
    lower: float
    upper: float
    is_hu: bool
    values: tuple[int, ...]
    counts: np.ndarray


def read_source(request: Request, geometry: Geometry) -> Source:
    """The voxels of a volume, or of a 2-D picture as one slice.

    Raises:
        UserError: unreadable, of an unknown type, a single slice that is to be cut along its depth, or no
            voxel size where slices are asked for in mm.
    """
    path = request.path
    source = _read_volume(request) if is_volume(path) else _read_picture(request)
    if source.shape[2] == 1 and geometry.axis != "axial":
        raise UserError(f"{path}: holds one slice, which cannot be cut {geometry.axis}; use axis axial")
    if geometry.spacing is not None and not source.has_spacing:
        raise UserError(
            f"{path}: has no voxel size, so it cannot be resampled to {geometry.spacing:g} mm; "
            "leave spacing out, or write the voxel size into its header"
        )
    return source


def _read_volume(request: Request) -> Source:
    if request.orientation != "identity":
        raise UserError(f"{request.path}: orientation {request.orientation} is for pictures; leave it out")
    volume = Volume.from_file(request.path)
    offset = volume.offset(request.hu_offset, request.path, MR_HINT) if request.in_hu else 0.0
    meaning = volume.is_hu, volume.source_range, volume.has_spacing
    return Source(volume.array, volume.affine, volume.spacing, *meaning, offset)


def _read_picture(request: Request) -> Source:
    path = request.path
    if not path.name.lower().endswith(PICTURE_SUFFIXES):
        known = ", ".join((*PICTURE_SUFFIXES, *VOLUME_SUFFIXES))
        raise UserError(f"{path}: unknown file type; use one of {known} or a folder with a DICOM series")
    source_range = (0.0, 255.0)
    if request.kind == "image":
        pixels, source_range = read_picture(path)
    else:
        pixels = read_label_picture(path)
    upright = orient(pixels, request.orientation)[:, :, None]  # (H, W, 1)
    return Source(upright, np.eye(4), (1.0, 1.0, 1.0), False, source_range, has_spacing=False)


def image_slices(source: Source, geometry: Geometry, intensity: Intensity, path: Path) -> Slices:
    """Slices as uint16, 0..65535 for the unit range.

    Raises:
        UserError: a constant image, or equal percentiles.
    """
    planes = to_planes(source.array, geometry.axis)
    if all((plane == planes[0, 0, 0]).all() for plane in planes):  # the first plane says it of most volumes
        raise UserError(f"{path}: every pixel has the same value; replace or remove the image")
    lower, upper, is_hu = _meaning(source, intensity, path)
    window = Window(lower - source.offset, upper - source.offset)  # of the values as they are stored
    frame = Frame.of(geometry, source.shape, source.spacing)
    array = np.empty((len(planes), geometry.size, geometry.size), np.uint16)
    for plane, stored in zip(planes, array, strict=True):
        unit = frame.image(to_unit(plane, window, is_hu=True), geometry.interpolation)
        np.rint(unit * _WHITE, out=stored, casting="unsafe")
    return Slices(array, lower, upper, is_hu, (), np.empty(0, np.int32))


def _meaning(source: Source, intensity: Intensity, path: Path) -> tuple[float, float, bool]:
    """What becomes 0 and 1, and whether these are HU."""
    if intensity.kind == "window":
        ends = (intensity.lower, intensity.upper) if source.is_hu else source.source_range
        return float(ends[0]), float(ends[1]), source.is_hu
    lower, upper = np.percentile(source.array, (intensity.lower, intensity.upper))
    if not lower < upper:
        raise UserError(
            f"{path}: its percentiles {intensity.lower:g} and {intensity.upper:g} are both {lower:g}; "
            "widen them or give a window"
        )
    return float(lower), float(upper), False


def label_slices(source: Source, geometry: Geometry, path: Path) -> Slices:
    """Slices as uint8 codes into the file's sorted values; code 0 is value 0 whether the file has it or not.

    Raises:
        UserError: values that are no labels.
    """
    values = label_values(source.array, path)
    frame, planes = Frame.of(geometry, source.shape, source.spacing), to_planes(source.array, geometry.axis)
    array = np.empty((len(planes), geometry.size, geometry.size), np.uint8)
    counts = np.empty((len(planes), len(values)), np.int32)
    for index, plane in enumerate(planes):
        array[index] = np.searchsorted(values, frame.label(plane))
        counts[index] = np.bincount(array[index].ravel(), minlength=len(values))
    return Slices(array, float(values[0]), float(values[-1]), False, tuple(int(v) for v in values), counts)


def label_values(array: np.ndarray, path: Path) -> np.ndarray:
    """The sorted values of a label volume (H, W, D), 0 among them.

    Raises:
        UserError: negative or broken numbers, or more than 255 values beside 0.
    """
    found = np.zeros(1, array.dtype)
    for index in range(array.shape[2]):
        found = np.union1d(found, array[:, :, index])
        if found.size > MOST_LABELS + 1:
            raise UserError(
                f"{path}: holds more than {MOST_LABELS} different values, so it is no label file; "
                "save labels losslessly, one whole number for each structure"
            )
    wrong = found[(found < 0) | (found != np.rint(found))]
    if wrong.size:
        raise UserError(
            f"{path}: value {wrong[0]:g} is no label; save whole numbers from 0 (background) upwards"
        )
    return found


logger = logging.getLogger(__name__)
LOCK = "converting.lock"


def usable_folder(folder: Path) -> None:
    """Makes the folder where it is missing.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); choose another --store_dir") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written; choose another --store_dir")


@contextmanager
def converting_alone(folder: Path) -> Iterator[None]:
    """Holds the folder's lock: a second process waits instead of doing the same work twice.

    The system frees the lock with its holder, however that ended; what a killed one left half-written is
    removed. Where the file system knows no locks the work may be done twice: every file is renamed
    into place when it is whole, so that the result is the same.
    """
    with (folder / LOCK).open("a") as file:
        if _lock(file, folder):
            remove_leftovers(folder)
        yield


def _lock(file: TextIO, folder: Path) -> bool:
    """Waits for the lock; False where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("%s: waiting for another process that converts there", folder)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    items: Sequence[Item], action: Callable[[Item], Result], workers: int, title: str
) -> list[Result]:
    """``action`` of every item, in order; goes on after a bad file to tell how many there are.

    Threads are enough: decompression, array arithmetic and resizing work outside Python's lock. (ITK, which
    reads MHD and DICOM, does not: of those files one is read at a time, the rest of the work is parallel.)

    Raises:
        UserError: the first bad file, with the number of others (it stops counting at five).
    """
    if not items:
        return []
    pool = ThreadPoolExecutor(min(workers, len(items)))
    try:
        futures = [pool.submit(action, item) for item in items]
        _wait(futures, title)
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(futures: Sequence[Future[Result]], title: str) -> None:
    """Until all are done; raises what went wrong with the first ones, whichever was ready first."""
    problems: list[str] = []
    for future in tqdm(futures, title, unit="file", disable=None, leave=False):
        error = future.exception()
        if error is not None and not isinstance(error, UserError):
            raise error
        if error is not None:
            problems.append(str(error))
        if len(problems) == MOST_PROBLEMS:
            break
    if problems:
        raise UserError(summary_of(list(dict.fromkeys(problems))))


@dataclass(frozen=True)
class CachedVolume:
    """What the store knows of one converted file; small and picklable.

    Attributes:
        array: the ``.npy`` file (N, S, S): images uint16 (0..65535 stands for 0..1), labels uint8 codes.
        source: the file it was made from.
        kind: ``image`` or ``label``.
        geometry: how it was cut.
        orientation: what brought a 2-D picture upright.
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
        """mm from one stored slice to the next."""
        along_rows, along_columns, along_slices = self.spacing
        return {"axial": along_slices, "coronal": along_rows, "sagittal": along_columns}[self.geometry.axis]

    def to_source(self, stack: np.ndarray, nearest: bool = False, fill: float = 0.0) -> np.ndarray:
        """A stack of slices (N, S, S) as a volume (H, W, D) in display order: undoes cut, crop and resizing.

        Args:
            stack: N slices, as they are stored or as a network made them.
            nearest: for labels; the type stays. Else linear, float32.
            fill: where the source was cropped away.
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


# What np.save puts before the data of an array of three dimensions.
HEADER_BYTES = 128
MOST_OPEN = 128
_SCALE = np.float32(1 / 65535)  # 65535 becomes exactly 1


class SliceReader:
    """Reads slices of stored volumes by position, without mapping the files into memory.

    Files are opened when they are first read; the most recent ones stay open. A reader can be pickled, and
    used on both sides of a fork (each read names its offset); threads need one reader each.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._raw = np.empty(0, np.uint16)

    def image(self, volume: CachedVolume, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Slice ``index`` of an image as float32 (S, S) in [0, 1], into ``out`` where that is given.

        Raises:
            IndexError: no such slice.
            UserError: the array is gone or cut short.
        """
        size = volume.geometry.size
        if self._raw.size != size * size:
            self._raw = np.empty(size * size, np.uint16)
        self._read(volume, index, self._raw)
        result = np.empty((size, size), np.float32) if out is None else out
        result[...] = self._raw.reshape(
            size, size
        )  # apart from the product: three times as fast as one ufunc
        result *= _SCALE
        return result

    def label(self, volume: CachedVolume, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Slice ``index`` of a label file as uint8 codes (S, S), into ``out`` (contiguous) where given.

        Raises:
            IndexError: no such slice.
            UserError: the array is gone or cut short.
        """
        size = volume.geometry.size
        result = np.empty((size, size), np.uint8) if out is None else out
        self._read(volume, index, result)
        return result

    def close(self) -> None:
        """Closes the files; the next read opens what it needs."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._open, self._raw = OrderedDict(), np.empty(0, np.uint16)

    def __del__(self) -> None:
        self.close()

    def _read(self, volume: CachedVolume, index: int, into: np.ndarray) -> None:
        if not 0 <= index < volume.depth:
            raise IndexError(f"{volume.source}: slice {index} of {volume.depth}")
        handle = self._handle(volume.array)
        if os.preadv(handle, [into.data], HEADER_BYTES + index * into.nbytes) != into.nbytes:
            raise UserError(f"{volume.array}: cut short; delete it and run again to convert it anew")

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


FORMAT = 2
"""Goes up whenever the same source and settings give other arrays, or are refused (2: a CT without air)."""
CHUNK = 2**20
Stamps = list[list[Any]]


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
        """All that decides the array beside the file's content; what labels do not depend on is left out."""
        geometry, intensity = asdict(self.geometry), self.request.intensity
        if self.geometry.spacing is not None or self.geometry.fit == "stretch":
            del geometry["fit"]  # as records had it before there was a choice
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
        }

    @property
    def name(self) -> str:
        """The record's name without suffix: readable, and unique by a hash of the settings."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"{quote(stem(self.source), safe='')[:60]}-{self.request.kind}-{digest[:12]}"


def stamps(source: Path) -> Stamps:
    """[name, bytes, time of change in ns] of every file that the volume consists of.

    Empty where it cannot be read, which converting it will say.
    """
    try:
        stats = [(part.name, part.stat()) for part in source_parts(source)]
    except OSError:
        return []
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def content_hash(source: Path) -> str:
    """SHA-256 over all files that the volume consists of.

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


def make_record(
    job: Job, array: str, parts: Stamps, content: str, source: Source, slices: Slices
) -> dict[str, Any]:
    """The record, plain JSON, of a converted file; ``array`` is the name of its ``.npy``."""
    return {
        "settings": job.settings,
        "array": array,
        "parts": parts,
        "sha256": content,
        "shape": list(source.shape),
        "affine": source.affine.tolist(),
        "spacing": list(source.spacing),
        "lower": slices.lower,
        "upper": slices.upper,
        "is_hu": slices.is_hu,
        "values": list(slices.values),
        "counts": slices.counts.tolist(),
    }


def read_record(path: Path) -> dict[str, Any] | None:
    """The record at ``path``; None where there is none that can be used."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # converted anew
    return record if isinstance(record, dict) else None


def stored_volume(record: dict[str, Any], job: Job, folder: Path) -> CachedVolume | None:
    """What the record says of ``job``; None where the array is not whole, or the record is not the job's."""
    if record.get("settings") != job.settings:
        return None
    height, width, depth = record["shape"]
    slices = planes_shape((height, width, depth), job.geometry.axis)[0]
    volume = CachedVolume(
        array=folder / record["array"],
        source=job.source,
        kind=job.request.kind,
        geometry=job.geometry,
        orientation=job.request.orientation,
        shape=(height, width, depth),
        affine=tuple(tuple(row) for row in record["affine"]),
        spacing=(record["spacing"][0], record["spacing"][1], record["spacing"][2]),
        lower=record["lower"],
        upper=record["upper"],
        is_hu=record["is_hu"],
        values=tuple(record["values"]),
        counts=np.array(record["counts"], np.int32).reshape(slices, len(record["values"])),
    )
    return volume if _is_whole(volume) else None


def _is_whole(volume: CachedVolume) -> bool:
    pixels = volume.depth * volume.geometry.size**2
    expected = HEADER_BYTES + pixels * (1 if volume.kind == "label" else 2)
    return volume.array.is_file() and volume.array.stat().st_size == expected


# Kept free: records, and the file system's own tables.
RESERVE = 16e6


def check_space(folder: Path, jobs: Sequence[Job]) -> None:
    """Compares the arrays' size, which the sources' headers tell, with what is free.

    Raises:
        UserError: too little.
    """
    if not jobs:
        return
    needed, free = sum(map(array_bytes, jobs)) + RESERVE, shutil.disk_usage(folder).free
    if needed > free:
        files = f"{len(jobs)} file{'' if len(jobs) == 1 else 's'}"
        raise UserError(
            f"{folder}: converting {files} needs {needed / 1e6:.0f} MB but {free / 1e6:.0f} MB are free; "
            "free some space or choose another --store_dir"
        )


def array_bytes(job: Job) -> int:
    """Bytes of the job's array; 0 for a file that cannot be read, which converting it will say."""
    try:
        shape = volume_shape(job.source) if is_volume(job.source) else (1, 1, 1)
    except UserError:
        return 0
    slices = planes_shape(shape, job.geometry.axis)[0]
    return slices * job.geometry.size**2 * (1 if job.request.kind == "label" else 2)


class SliceCache:
    """A folder of converted files, all cut by one geometry.

    Args:
        folder: made where it is missing; several data sets and settings may share it.
        geometry: how the slices are cut.
        workers: threads that convert, each with one volume in memory; None for one a core.
    """

    def __init__(
        self, folder: str | os.PathLike[str], geometry: Geometry, workers: int | None = None
    ) -> None:
        self.folder, self.geometry = Path(folder), geometry
        self.workers = workers or len(os.sched_getaffinity(0))

    def convert(self, requests: Sequence[Request]) -> list[CachedVolume]:
        """The converted files, in the order of the requests.

        What was converted before is trusted where size and time of the source are as they were, or else its
        content; the rest is converted, on all cores, by one process at a time. Files that were converted
        before a bad one was met stay converted.

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
        usable_folder(self.folder)
        with converting_alone(self.folder):
            # Another process may have converted them while this one waited.
            found = in_parallel(missing, self._unchanged, self.workers, "checking")
            rest = [job for job, volume in zip(missing, found, strict=True) if volume is None]
            check_space(self.folder, rest)
            made = iter(in_parallel(rest, self._converted, self.workers, "converting"))
            return {
                job.name: next(made) if volume is None else volume
                for job, volume in zip(missing, found, strict=True)
            }

    def _record_path(self, job: Job) -> Path:
        return self.folder / f"{job.name}.json"

    def _known(self, job: Job) -> tuple[dict[str, Any], CachedVolume] | None:
        """The record and what it says, where the job was converted from whatever the source was then."""
        record = read_record(self._record_path(job))
        volume = None if record is None else stored_volume(record, job, self.folder)
        return None if record is None or volume is None else (record, volume)

    def _trusted(self, job: Job) -> CachedVolume | None:
        """The volume where size and time of the source are those on record."""
        known = self._known(job)
        return known[1] if known is not None and known[0]["parts"] == stamps(job.source) else None

    def _unchanged(self, job: Job) -> CachedVolume | None:
        """The volume where the source's content is that on record; brings its times up to date."""
        known, parts = self._known(job), stamps(job.source)
        if known is None or not parts:
            return None
        record, volume = known
        if record["parts"] != parts:
            if content_hash(job.source) != record["sha256"]:
                return None
            write_json(self._record_path(job), {**record, "parts": parts})
        return volume

    def _converted(self, job: Job) -> CachedVolume:
        """Converts one file: the array first, under a name of its content, then the record that names it."""
        parts, content = stamps(job.source), content_hash(job.source)
        request, path = job.request, job.source
        source = read_source(request, self.geometry)
        slices = (
            label_slices(source, self.geometry, path)
            if request.intensity is None or request.kind == "label"
            else image_slices(source, self.geometry, request.intensity, path)
        )
        array = f"{job.name}-{content[:8]}.npy"
        with atomic_write(self.folder / array) as temporary:
            np.save(temporary, slices.array)
        record = make_record(job, array, parts, content, source, slices)
        write_json(self._record_path(job), record)
        self._remove_others(job, array)
        volume = stored_volume(record, job, self.folder)
        if volume is None:
            raise UserError(f"{self.folder / array}: was changed while it was written; run again")
        return volume

    def _remove_others(self, job: Job, array: str) -> None:
        """Removes the arrays of the source's earlier content."""
        for path in self.folder.glob(f"{job.name}-????????.npy"):
            if path.name != array:
                with suppress(FileNotFoundError):
                    path.unlink()


# Tools write affines in single precision; entries of one grid differ by less than this (mm).
AFFINE_TOLERANCE = 1e-3
SHOWN = 5
"""So many patients are named in an error."""


class CachedPair(NamedTuple):
    """A converted image and what it is conditioned on.

    Args:
        sample: the files; ``index`` None.
        image, label: both converted; ``label`` is an image too where the condition is one.
        table: uint8, the class of each of the label's codes; None where the condition is an image.
    """

    sample: Sample
    image: CachedVolume
    label: CachedVolume
    table: np.ndarray | None

    @property
    def is_volume(self) -> bool:
        """Whether its slices are numbered; a picture is one slice without a number."""
        return is_volume(self.sample.image)


def cached_pair(
    sample: Sample, image: CachedVolume, label: CachedVolume, label_set: LabelSet | None
) -> CachedPair:
    """Joins what the store made of a sample's two files.

    Raises:
        UserError: the two differ in shape or affine, or the label has values that ``label_set`` refuses.
    """
    check_same_grid(image, label)
    table = None if label_set is None else label_set.table(label.values, label.source)
    return CachedPair(sample, image, label, table)


def check_same_grid(image: CachedVolume, label: CachedVolume) -> None:
    """Refuses two files whose voxels are not at the same places; the order of their axes may differ.

    Raises:
        UserError: names both files.
    """
    if image.shape != label.shape:
        raise UserError(
            f"{label.source}: is {_size(label.shape)} voxels but {image.source} is {_size(image.shape)} "
            "(rows x columns x slices); resample one to the other"
        )
    difference = np.abs(display_affine(image) - display_affine(label)).max()
    if difference > AFFINE_TOLERANCE:
        raise UserError(
            f"{label.source}: its affine differs from that of {image.source} (by up to {difference:.4g} mm); "
            "resample one to the other, or copy the header if only that is wrong"
        )


def display_affine(volume: CachedVolume) -> np.ndarray:
    """4 x 4: voxels (H, W, D) in display order to world mm."""
    affine = np.array(volume.affine)
    there = ornt_transform(io_orientation(affine), axcodes2ornt(DISPLAY_AXES))
    file_shape = [volume.shape[int(axis)] for axis in there[:, 0]]
    return affine @ inv_ornt_aff(there, file_shape)


def selected_slices(
    pairs: Sequence[CachedPair], min_pixels: int, every: int, classes: Sequence[str]
) -> np.ndarray:
    """The slices in use, int32 (N, 2): number of the pair, slice along the cut axis.

    Args:
        pairs: what to choose from.
        min_pixels: keep slices with at least that many pixels of the classes, at the stored size; 0 for all.
        every: keep every n-th slice of each volume, counted from its first.
        classes: their names, for the error.
    Raises:
        UserError: nothing is left; says which filter took the slices.
    """
    if every < 1 or min_pixels < 0:
        raise UserError(f"every {every} must be at least 1 and min_pixels {min_pixels} at least 0")
    total, thinned, kept = 0, 0, []
    for number, pair in enumerate(pairs):
        slices = np.arange(0, pair.image.depth, every, dtype=np.int32)
        total, thinned = total + pair.image.depth, thinned + len(slices)
        slices = slices[_foreground(pair)[slices] >= min_pixels]
        kept.append(np.stack([np.full_like(slices, number), slices], axis=1))
    if not any(len(slices) for slices in kept):
        named = ", ".join(classes) or "a class"
        raise UserError(
            f"{_where(pairs)}: no slices left of {total} ({_patients(pairs)}): {thinned} after "
            f"every={every}, none of them with min_pixels={min_pixels} pixels of {named}; lower min_pixels "
            "or choose other --labels"
        )
    return np.concatenate(kept)


def _foreground(pair: CachedPair) -> np.ndarray:
    """Pixels of any class in each slice (N,); without classes nothing counts as too few."""
    if pair.table is None:
        return np.full(pair.image.depth, np.iinfo(np.int64).max)
    return np.asarray(pair.label.counts)[:, pair.table > 0].sum(axis=1, dtype=np.int64)


def _where(pairs: Sequence[CachedPair]) -> str:
    return str(pairs[0].sample.image.parent) if pairs else "the data set"


def _patients(pairs: Sequence[CachedPair]) -> str:
    names = sorted({pair.sample.patient for pair in pairs})
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(extent) for extent in shape)
