"""DICOM series: which files of a folder belong together, where their slices lie, and their values in HU.

Decoding is pydicom's, and ITK's for the compressed forms that pydicom has no decoder for. The checks are
ours: MONAI's and ITK's readers read a gap in a series as an even spacing, count a slice twice where its file
lies there twice, straighten a tilted gantry in silence, and invert MONOCHROME1 before the rescale.
"""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.data.samples import is_dicom_file
from common.errors import UserError, read_errors
from common.files import visible_files

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

logger = logging.getLogger(__name__)
# Positions have few decimals: slices closer than this share of the usual step lie in one place.
SAME_POSITION = 0.01
# A step may differ from the others by this share of them.
UNEVEN_STEP = 0.03
# Slices that are shifted in their plane by more than this share of a pixel a slice come from a tilted gantry.
TILTED = 0.01
AIR_HU, METAL_HU = -1024.0, 3071.0
"""Range of a CT's HU. Padding beyond it becomes air; within it, headers often name a value of tissue."""
CACHED_SERIES = 64
# ITK loads its modules when they are first used, which two threads must not do at once.
ITK_LOCK = threading.Lock()


@dataclass(frozen=True)
class Frame:
    """One slice of a file: where it lies (mm, LPS) and how its stored values become HU."""

    file: Path
    index: int
    frames: int
    series: str
    instance: str
    patient: str
    shape: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    thickness: float
    rescale: tuple[float, float]
    localizer: bool
    sized: bool = True
    rescaled: bool = True
    description: str = ""

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice (LPS)."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass(frozen=True)
class DicomSeries:
    """The slices of one series in the order of their positions, feet or back first.

    Attributes:
        folder: where it was looked for.
        frames: the slices, evenly spaced.
        step: from one slice to the next (mm, LPS).
        left_out: what else the folder holds: reason -> number of files.
    """

    folder: Path
    frames: tuple[Frame, ...]
    step: tuple[float, ...]
    has_spacing: bool = True
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        rows, columns = self.frames[0].shape
        return columns, rows, len(self.frames)

    @property
    def affine(self) -> np.ndarray:
        """4 x 4: (column, row, slice) to world mm (RAS)."""
        first = self.frames[0]
        affine = np.eye(4)
        affine[:3, 0] = np.multiply(first.orientation[:3], first.spacing[1])
        affine[:3, 1] = np.multiply(first.orientation[3:], first.spacing[0])
        affine[:3, 2] = self.step
        affine[:3, 3] = first.position or (0.0, 0.0, 0.0)
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


class DecodedVolume(NamedTuple):
    """Voxels (column, row, slice), affine to world mm (RAS), and whether the file gives a voxel's size."""

    array: np.ndarray
    affine: np.ndarray
    has_spacing: bool


def read_series(path: Path) -> DecodedVolume:
    """Reads a DICOM file, or the one series in a folder and its subfolders.

    Values are each slice's stored values times its own slope plus its own intercept, whatever the photometric
    interpretation; int16 where they are whole numbers that fit, else int32 or float32.

    Args:
        path: one file, or a folder with the files of one series at any depth.
    Returns:
        array (column, row, slice) in HU, affine to world mm (RAS), and whether the size of a voxel is known.
    Raises:
        UserError: no series, several, gaps, uneven steps, two different slices in one place, a tilted gantry,
            colours, or damaged files.
    """
    series = find_single_series(path)
    slices = [_read_frame(frame) for frame in series.frames]
    stack = np.stack([values.T for values in slices], axis=2)
    return DecodedVolume(_smallest_type(stack), series.affine, series.has_spacing)


def find_single_series(path: Path) -> DicomSeries:
    """The series of a file, or of a folder and its subfolders; one line warns of files that are left out.

    Raises:
        UserError: no series, several, or one that `order_slices` refuses.
    """
    with read_errors(path):
        stats = [(file, file.stat()) for file in dicom_files(path)]
    return _single_series(path, tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))


@lru_cache(maxsize=CACHED_SERIES)
def _single_series(path: Path, stamps: tuple[tuple[Path, int, int], ...]) -> DicomSeries:
    groups = _grouped(file for file, _, _ in stamps)
    if not groups:
        raise UserError(
            f"{path}: holds no DICOM images; an image is one file, or a folder with one DICOM series "
            "(convert segmentations and doses to NIfTI)"
        )
    if len(groups) > 1:
        names = "; ".join(f"{len(frames)} slices{_described(frames)}" for frames in groups.values())
        raise UserError(
            f"{path}: {len(groups)} DICOM series in one folder ({names}); keep one series per folder"
        )
    series = order_slices(next(iter(groups.values())), path)
    if series.left_out:
        counts = ", ".join(f"{count} {reason}" for reason, count in series.left_out.items())
        logger.warning("%s: left out of the series: %s", path, counts)
    return series


def _grouped(files: Iterable[Path]) -> dict[str, list[Frame]]:
    """Series UID -> its slices, in no order; scouts make no series, and what is no image is left out.

    Raises:
        UserError: a file that is named or marked as DICOM cannot be read.
    """
    groups: dict[str, list[Frame]] = defaultdict(list)
    for file in files:
        for frame in _read_frames(file):
            groups[frame.series].append(frame)
    proper = {uid: frames for uid, frames in groups.items() if not all(frame.localizer for frame in frames)}
    return proper or dict(groups)


def dicom_files(path: Path) -> list[Path]:
    """The DICOM files of a folder and its subfolders, sorted; the file itself where ``path`` is one.

    Raises:
        UserError: the folder cannot be read.
    """
    return [file for file in visible_files(path) if is_dicom_file(file)] if path.is_dir() else [path]


def in_series(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Series UID -> its files, of DICOM files in one folder; scouts and what is no image are left out.

    All headers are read only where the first, the middle and the last differ.
    """
    uids = {file_identity(files[index])[1] for index in (0, len(files) // 2, -1)}
    if len(uids) == 1 and "" not in uids:
        return {uids.pop(): list(files)}
    return {uid: list(dict.fromkeys(f.file for f in frames)) for uid, frames in _grouped(files).items()}


def file_identity(file: Path) -> tuple[str, str]:
    """``PatientID`` and ``SeriesInstanceUID`` of a DICOM file; empty where missing or unreadable."""
    import pydicom

    tags = ["PatientID", "SeriesInstanceUID"]
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
    except Exception:  # whoever reads the voxels says what is wrong with it
        return "", ""
    patient, series = (str(header.get(tag, "") or "").strip() for tag in tags)
    return patient, series


def order_slices(frames: Sequence[Frame], path: Path) -> DicomSeries:
    """Sorts the slices of a series by position and leaves out scouts, other orientations and repeated slices.

    Raises:
        UserError: what remains does not make a regular grid.
    """
    left_out: Counter[str] = Counter()
    kept = _of_one_plane(frames, path, left_out)
    if len(kept) == 1:
        return _single(kept[0], path, left_out)
    if any(frame.position is None for frame in kept):
        raise UserError(
            f"{path}: slices without ImagePositionPatient or ImageOrientationPatient, so their order and "
            "spacing are not known; export the series again, or as NIfTI"
        )
    bare = [frame.file.name for frame in kept if not frame.rescaled]
    if 0 < len(bare) < len(kept):
        raise UserError(
            f"{path}: {len(bare)} of {len(kept)} slices have no RescaleIntercept (first {bare[0]}), so their "
            "HU are not known; export the series again"
        )
    kept = _without_repeated(kept, path, left_out)
    if len(kept) == 1:
        return _single(kept[0], path, left_out)
    along = np.array([np.dot(frame.position or (), kept[0].normal) for frame in kept])
    steps = np.diff(along)
    usual = float(np.median(steps))
    uneven = np.flatnonzero(np.abs(steps - usual) > UNEVEN_STEP * usual)
    if uneven.size:
        raise UserError(_uneven(path, kept, steps, usual, int(uneven[0])))
    step = (np.array(kept[-1].position) - np.array(kept[0].position)) / (len(kept) - 1)
    _check_tilt(step, kept[0], path)
    return DicomSeries(
        path, tuple(kept), tuple(float(value) for value in step), kept[0].sized, dict(left_out)
    )


def _uneven(path: Path, frames: Sequence[Frame], steps: np.ndarray, usual: float, index: int) -> str:
    names = f"{frames[index].file.name} and {frames[index + 1].file.name}"
    missing = round(float(steps[index]) / usual) - 1
    share = abs(float(steps[index]) / usual - missing - 1)
    guess = f"; {missing} seem to be missing" if missing > 0 and share < UNEVEN_STEP else ""
    return (
        f"{path}: its slices are not evenly spaced: {names} are {steps[index]:.4g} mm apart, most are "
        f"{usual:.4g} mm{guess}; restore the missing files, or resample the series to even steps"
    )


def _check_tilt(step: np.ndarray, frame: Frame, path: Path) -> None:
    across = step - np.dot(step, frame.normal) * frame.normal
    if np.linalg.norm(across) > TILTED * min(frame.spacing):
        angle = math.degrees(math.atan2(float(np.linalg.norm(across)), float(np.dot(step, frame.normal))))
        raise UserError(
            f"{path}: its slices are sheared by {angle:.1f} degrees (a tilted gantry); "
            "straighten the series first, as dcm2niix does"
        )


def _single(frame: Frame, path: Path, left_out: Counter[str]) -> DicomSeries:
    step = frame.normal * (frame.thickness or 1.0)
    known = frame.sized and frame.thickness > 0
    return DicomSeries(path, (frame,), tuple(float(value) for value in step), known, dict(left_out))


def _of_one_plane(frames: Sequence[Frame], path: Path, left_out: Counter[str]) -> list[Frame]:
    """The slices of the most frequent size and orientation."""
    images = [frame for frame in frames if not frame.localizer] or list(frames)
    if len(images) < len(frames):
        left_out["scouts"] += len(frames) - len(images)
    planes: dict[tuple[Any, ...], list[Frame]] = defaultdict(list)
    for frame in images:
        directions = tuple(round(value, 3) + 0.0 for value in frame.orientation)
        planes[(frame.shape, directions, tuple(round(side, 4) for side in frame.spacing))].append(frame)
    by_size = sorted(planes.values(), key=len, reverse=True)
    if len(by_size) > 1 and 2 * len(by_size[1]) > len(by_size[0]):
        raise UserError(
            f"{path}: one series with {len(by_size[0])} and {len(by_size[1])} slices of different size, "
            "spacing or orientation; keep one kind per folder"
        )
    others = sum(len(plane) for plane in by_size[1:])
    if others:
        left_out["slices of another size, spacing or orientation"] += others
    return by_size[0]


def _without_repeated(frames: Sequence[Frame], path: Path, left_out: Counter[str]) -> list[Frame]:
    """Sorted by position; of slices in one place the first, where their values are the same."""
    normal = frames[0].normal

    def height(frame: Frame) -> float:
        return float(np.dot(frame.position or (), normal))

    ordered = sorted(frames, key=lambda frame: (height(frame), str(frame.file)))
    along = np.array([height(frame) for frame in ordered])
    steps = np.diff(along)
    usual = float(np.median(steps[steps > 1e-4])) if (steps > 1e-4).any() else 1.0
    kept = [ordered[0]]
    for frame, step in zip(ordered[1:], steps, strict=True):
        if step > SAME_POSITION * usual:
            kept.append(frame)
            continue
        first = kept[-1]
        same = first.instance == frame.instance and first.index == frame.index
        if not same and not np.array_equal(_read_frame(first), _read_frame(frame)):
            raise UserError(
                f"{path}: {first.file.name} and {frame.file.name} are different slices in one place; "
                "keep one acquisition per folder"
            )
        left_out["repeated slices"] += 1
    return kept


def _read_frames(file: Path) -> Iterator[Frame]:
    """The slices that a file holds; none where it is no image."""
    header = _header(file)
    described = "Rows" in header and "Columns" in header
    if not described and _is_image_class(header):
        raise UserError(f"{file}: ends before its pixels are described; restore the file")
    if not described or not _is_image_class(header):
        return
    count = int(header.get("NumberOfFrames", 1) or 1)
    shared = _first(header, "SharedFunctionalGroupsSequence")
    groups = list(header.get("PerFrameFunctionalGroupsSequence", None) or [])
    if count > 1 and len(groups) != count:
        raise UserError(
            f"{file}: has {count} frames but no place for each (PerFrameFunctionalGroupsSequence); "
            "convert it to one file a slice, or to NIfTI"
        )
    for index in range(count):
        own = groups[index] if groups else None
        yield _frame(file, header, own, shared, index, count)


def _is_image_class(header: Dataset) -> bool:
    """Whether the file is an image or no longer says what it is; reports and segmentations are none."""
    known = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    if known is None or "Image Storage" in known.name:
        return True
    return bool(known.is_private) and "Rows" in header


def _frame(
    file: Path, header: Dataset, own: Dataset | None, shared: Dataset | None, index: int, count: int
) -> Frame:
    def value(sequence: str, name: str) -> Any:
        for group in (own, shared):
            item = None if group is None else _first(group, sequence)
            if item is not None and item.get(name) is not None:
                return item.get(name)
        return header.get(name)

    with read_errors(file):
        position = value("PlanePositionSequence", "ImagePositionPatient")
        orientation = value("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = value("PixelMeasuresSequence", "PixelSpacing")
        thickness = value("PixelMeasuresSequence", "SliceThickness")
        rescale = [
            value("PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept")
        ]
        kinds = [str(kind).upper() for kind in header.get("ImageType", None) or []]
        return Frame(
            file=file,
            index=index,
            frames=count,
            series=str(header.get("SeriesInstanceUID", "")),
            instance=str(header.get("SOPInstanceUID", "")),
            patient=str(header.get("PatientID", "")),
            shape=(int(header.Rows), int(header.Columns)),
            position=tuple(float(number) for number in position) if position and orientation else None,
            orientation=tuple(float(number) for number in orientation or (1, 0, 0, 0, 1, 0)),
            spacing=(float(spacing[0]), float(spacing[1])) if spacing else (1.0, 1.0),
            thickness=float(thickness or 0.0),
            rescale=(float(_or(rescale[0], 1.0)), float(_or(rescale[1], 0.0))),
            localizer="LOCALIZER" in kinds,
            sized=bool(spacing),
            rescaled=_or(rescale[1], None) is not None or "ModalityLUTSequence" in header,
            description=str(header.get("SeriesDescription", "")),
        )


def _or(value: Any, otherwise: float | None) -> Any:
    return otherwise if value is None or value == "" else value


def _first(dataset: Dataset, name: str) -> Dataset | None:
    items = dataset.get(name)
    return items[0] if items else None


def _header(file: Path) -> Dataset:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with read_errors(file):
            return pydicom.dcmread(file, stop_before_pixels=True)
    except UserError:
        raise
    except InvalidDicomError:
        pass
    with read_errors(file):
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)  # written without a preamble
    if "SOPClassUID" not in header:
        raise UserError(f"{file}: not readable as DICOM; restore or remove the file")
    return header


def _read_frame(frame: Frame) -> np.ndarray:
    """One slice (row, column) in HU: float64."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    with read_errors(frame.file):
        dataset = pydicom.dcmread(frame.file, force=True)
        palette = dataset.get("PhotometricInterpretation") == "PALETTE COLOR"
        if palette or int(dataset.get("SamplesPerPixel", 1)) != 1:
            raise UserError(f"{frame.file}: is in colour; this needs one gray value per pixel")
        if "PixelData" not in dataset:
            raise UserError(f"{frame.file}: has no pixels; restore the file")
        stored = _stored_values(dataset)
        if frame.frames > 1:
            stored = stored[frame.index]
        if "ModalityLUTSequence" in dataset:
            return np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
        slope, intercept = frame.rescale
        if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
            raise UserError(f"{frame.file}: its rescale slope is {slope:g}; repair the header")
        return _without_padding(stored.astype(np.float64) * slope + intercept, stored, dataset)


def _without_padding(values: np.ndarray, stored: np.ndarray, dataset: Dataset) -> np.ndarray:
    """The values with air where the scanner filled up its field of view; in other images than CT the lowest.

    ``PixelPaddingValue`` (DICOM PS3.3, C.7.5.1.1.2) is often written in the wrong sign.
    """
    ends = [dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not isinstance(ends[0], int):
        return values
    bits, signed = int(dataset.BitsAllocated), int(dataset.get("PixelRepresentation", 0))
    ends = [int(end) % 2**bits for end in ends if isinstance(end, int)]
    ends = [end - 2**bits if signed and end >= 2 ** (bits - 1) else end for end in ends]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    if dataset.get("Modality") == "CT":
        values[padding & ((values < AIR_HU) | (values >= METAL_HU))] = AIR_HU
    elif padding.any() and not padding.all():
        values[padding] = values[~padding].min()
    return values


def _stored_values(dataset: Dataset) -> np.ndarray:
    """The stored values, (row, column) or (frame, row, column), in the bits that count."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        stored = np.asarray(dataset.pixel_array)
    except AttributeError as error:  # damaged: an element that describes the pixels is missing
        raise ValueError(str(error)) from error
    except (RuntimeError, NotImplementedError):
        if syntax is None or not syntax.is_compressed:
            raise
        return _stored_by_itk(dataset)
    bits, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    if bits >= allocated or stored.dtype.kind not in "iu":
        return stored
    values = stored.astype(np.int64) & ((1 << bits) - 1)  # overlays may lie in the bits above
    if int(dataset.get("PixelRepresentation", 0)):
        values -= (values >> (bits - 1)) << bits
    return values


def _stored_by_itk(dataset: Dataset) -> np.ndarray:
    """Decodes by ITK a copy without rescale and inversion, which ITK would apply by itself."""
    import itk

    plain = dataset.copy()
    plain.file_meta = dataset.file_meta
    plain.RescaleSlope, plain.RescaleIntercept, plain.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        plain.save_as(file.name, enforce_file_format=True)
        with ITK_LOCK:
            itk.ProcessObject.SetGlobalWarningDisplay(False)
            values = np.asarray(itk.array_from_image(itk.imread(file.name)))
    return values if int(dataset.get("NumberOfFrames", 1) or 1) > 1 else values.reshape(values.shape[-2:])


def _smallest_type(values: np.ndarray) -> np.ndarray:
    """int16 or int32 where that loses nothing, else float32."""
    whole = np.rint(values)
    if np.abs(values - whole).max() > 1e-6:
        return values.astype(np.float32)
    fits = np.iinfo(np.int16).min <= whole.min() and whole.max() <= np.iinfo(np.int16).max
    return whole.astype(np.int16 if fits else np.int32)


def _described(frames: Sequence[Frame]) -> str:
    return f" '{frames[0].description}'" if frames[0].description else f" in {frames[0].file.parent.name}"
