"""How files become slices for a network: settings, gray values of any kind, NumPy arrays, tar shards."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from common.data.hu_calibration import GrayValues, calibrate
from common.data.image_io import EIGHT_BITS, SIXTEEN_BITS, Pixels
from common.data.intensity import WINDOWS, Standardiser, Window, to_unit, window_by_name
from common.data.layouts import MASK_FOLDERS
from common.data.samples import has_suffix
from common.data.slice_geometry import fit_mask, fit_square
from common.errors import UserError, read_errors
from common.files import read_json, visible_files

IMAGES, PAIRS, STRUCTURES = "images", "pairs", "structures"
"""Kinds of data set: images alone, with lesion masks, with label maps of the heart."""
SHEETS = ("grid", "panel", "nearest", "curves")
"""Pictures that the bundles write next to their results; they are no images of the set."""
ALPHA_FOLDER = "alpha"
LABEL_FOLDERS = (*MASK_FOLDERS, ALPHA_FOLDER)
ALPHA_THRESHOLD = 128
"""Value of an 8-bit alpha from which on a pixel counts as nodule."""
DEFAULT_SIZE = 128


@dataclass(frozen=True)
class ReadingSettings:
    """How files become slices for a network.

    Attributes:
        image_size: S in pixels.
        window: HU that become -1 and 1.
        fit: how slices become square, see `common.data.slice_geometry.fit_square`.
        source_range: black and white of files that are not HU; None for their type's full range.
        hu_offset: added to values that are not HU, see `common.data.hu_calibration.calibrate`.
        mask_threshold, ignore_value: of masks and labels, see `common.data.mask_values`.
        patient_pattern: see `common.data.patients.patient_of`; None for the usual ways of naming files.
        empty_labels: whether slices with an empty label count too, where there are labels.
        kind: ``images``, ``pairs`` (with lesion masks) or ``structures`` (with label maps of the heart).
        standardiser: brings 8-bit slices to the intensity standard of the model's training.
        info: the model's facts, for ``structures``: geometry, intensities, classes.
    Raises:
        UserError: an invalid size.

    Example:
        >>> ReadingSettings(64, fit="pad").window
        Window(lower=-1000, upper=400)
    """

    image_size: int = DEFAULT_SIZE
    window: Window = WINDOWS["lung"]
    fit: str = "stretch"
    source_range: tuple[float, float] | None = None
    patient_pattern: str | None = None
    empty_labels: bool = False
    kind: str = PAIRS
    standardiser: Standardiser | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    hu_offset: float | None = None
    mask_threshold: float | None = None
    ignore_value: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise UserError(f"image_size {self.image_size}: give the side of the slices in pixels")

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> ReadingSettings:
        """Makes the settings of a model's training.

        Args:
            info: the model's facts (`common.inference.checkpoint.model_info`); empty for the defaults.
        Raises:
            UserError: the model's images are not square.
        """
        state = info.get("standardiser")
        return cls(
            image_size=_side(info.get("image_size", DEFAULT_SIZE)),
            window=window_by_name(info.get("window_hu", "lung")),
            fit=info.get("fit", "stretch"),
            kind=_kind(info),
            empty_labels=info.get("layer") == "nodules",  # one drawn without nodule counts too
            standardiser=None if state is None else Standardiser.from_state(state),
            patient_pattern=info.get("split", {}).get("patient_pattern"),
            info=info,
        )

    @classmethod
    def of_any_generator(
        cls,
        window: Window | None = None,
        image_size: int | None = None,
    ) -> ReadingSettings:
        """Makes the settings for any generator's images: padded to squares, nothing else changed.

        Args:
            window: HU that become -1 and 1; None for ``lung``.
            image_size: S in pixels; None for `DEFAULT_SIZE`.
        Raises:
            UserError: an invalid size.
        """
        return cls(
            image_size=DEFAULT_SIZE if image_size is None else image_size,
            window=window or WINDOWS["lung"],
            fit="pad",
        )


def _kind(info: Mapping[str, Any]) -> str:
    """Returns the kind of the model's data set, by facts that only such a set writes."""
    if "intensity" in info:
        return STRUCTURES
    if "empty_masks" in info:
        return PAIRS
    return IMAGES if "fit" in info or "layer" in info else PAIRS  # older models of pairs have neither


def _side(size: Any) -> int:
    """``S`` or ``[S, S]`` as S."""
    sides = {int(side) for side in (size if isinstance(size, list | tuple) else [size])}
    if len(sides) != 1:
        raise UserError(f"image_size {size}: the trust report takes models of square images")
    return sides.pop()


@dataclass(frozen=True)
class ReadSlice:
    """One slice before its intensities are standardized.

    Attributes:
        unit: float32 (S, S) in [0, 1].
        label: uint8 (S, S); None without.
        name: see `common.trust.image_sets.ImageSet`.
        patient: the person, where several scans are known to be of one.
        scan: the patient's id in the files' names.
        is_hu: whether the values are calibrated HU.
    """

    unit: np.ndarray
    label: np.ndarray | None
    name: str
    patient: str
    scan: str
    is_hu: bool


def prepare(pixels: Pixels, settings: ReadingSettings) -> np.ndarray:
    """Maps gray values (H, W) of any kind to the square (S, S) in [0, 1] that the network sees."""
    lower, upper = pixels.source_range if settings.source_range is None else settings.source_range
    unit = to_unit(pixels.values, settings.window, pixels.is_hu, (float(lower), float(upper)))
    return fit_square(unit, settings.image_size, settings.fit)


def prepare_label(label: np.ndarray, settings: ReadingSettings) -> np.ndarray:
    """Brings a label (H, W) to uint8 (S, S), placed like its image; no new values."""
    return fit_mask(label, settings.image_size, settings.fit)


def standardize_slices(slices: Sequence[ReadSlice], standardiser: Standardiser | None) -> list[ReadSlice]:
    """Returns the slices in the model's intensity standard, scan by scan; HU are left alone."""
    result = list(slices)
    if standardiser is None:
        return result
    scans: dict[str, list[int]] = defaultdict(list)
    for index, each in enumerate(slices):
        if not each.is_hu:
            scans[each.scan].append(index)
    for indices in scans.values():
        standardized = standardiser.apply_scan([slices[index].unit for index in indices])
        for index, unit in zip(indices, standardized, strict=True):
            result[index] = replace(slices[index], unit=unit)
    return result


def may_hold_images(path: Path, folder: Path) -> bool:
    """Returns whether a file or a DICOM folder is no sheet and in no folder of labels."""
    parts = path.relative_to(folder).parts
    return path.stem not in SHEETS and not set(LABEL_FOLDERS) & set(parts if path.is_dir() else parts[:-1])


ARRAY_SUFFIX = ".npy"
BANK, RECORDS = "hu.npy", "records.json"
LABELS = {"alpha.npy": ALPHA_THRESHOLD, "nodules.npy": 1}
"""Files of a bank that mark nodules, with the value from which on a pixel is one."""
NETWORK = (-1.0, 1.0)


def read_arrays(folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    """Reads all slices of the NumPy files below ``folder``; those of a bank with its nodules as labels.

    Raises:
        UserError: an unreadable file, another shape than (H, W), (N, H, W) or (N, 1, H, W), or NaN.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/drawn.npy", np.full((2, 8, 8), -1000, np.int16))
        ...     slices = read_arrays(Path(folder), ReadingSettings(8))
        >>> [each.name for each in slices], float(slices[0].unit.max())
        (['drawn.npy#000000', 'drawn.npy#000001'], 0.0)
    """
    files = array_files(folder)
    if folder / BANK in files:
        slices = _read_array(folder / BANK, folder, settings, read_json(folder / RECORDS))
        return _with_nodules(slices, folder, settings)
    return [each for file in files for each in _read_array(file, folder, settings, ())]


def array_files(folder: Path) -> list[Path]:
    """Returns the NumPy files below ``folder``."""
    return [
        file
        for file in visible_files(folder)
        if has_suffix(file, ARRAY_SUFFIX) and may_hold_images(file, folder)
    ]


def interpret_values(
    array: np.ndarray,
    name: object,
    hu_offset: float | None = None,
    source_range: tuple[float, float] | None = None,
    values_of_all: GrayValues | None = None,
) -> Pixels:
    """Interprets an array's values by their type and range.

    Integers are HU, but uint8 and uint16 use their type's range; real numbers lie in 0..1, in -1..1 as a
    network has them, or are HU.

    Args:
        array: (H, W).
        name: the file's, for messages.
        hu_offset, source_range: see `common.data.hu_calibration.calibrate`.
        values_of_all: of the whole file, if the array is a part of it.
    Raises:
        UserError: NaN, a type that holds no gray values, or values that should be HU and are not.

    Example:
        >>> interpret_values(np.array([[-900, 40]], np.int16), "slice.npy").is_hu
        True
        >>> interpret_values(np.array([[0, 90]], np.uint8), "slice.npy").source_range
        (0.0, 255.0)
    """
    if array.dtype.kind not in "uif":
        raise UserError(
            f"{name}: holds {array.dtype} values, which are no gray values; save int16 HU or float32"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{name}: holds NaN or infinite values; repair or remove the file")
    values = np.asarray(array, np.float32)
    lowest, highest = float(values.min()), float(values.max())
    if array.dtype.kind == "f" and lowest >= -1 and highest <= 1:
        return Pixels(values, False, source_range or ((0.0, 1.0) if lowest >= 0 else NETWORK))
    own = {np.dtype(np.uint8): EIGHT_BITS, np.dtype(np.uint16): SIXTEEN_BITS}.get(array.dtype)
    calibration = calibrate(values_of_all or GrayValues(values), own, hu_offset, source_range, name)
    return Pixels(values + np.float32(calibration.offset), calibration.is_hu, calibration.source_range)


def _read_array(file: Path, folder: Path, settings: ReadingSettings, records: Any) -> list[ReadSlice]:
    with read_errors(file):
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]  # (N, 1, H, W) -> (N, H, W)
    if array.ndim not in (2, 3) or array.size == 0:
        raise UserError(f"{file}: has shape {array.shape}; save images as (H, W) or (N, H, W)")
    stack, single = (array[None], True) if array.ndim == 2 else (array, False)
    if len(records) not in (0, len(stack)):
        raise UserError(
            f"{folder / RECORDS}: {len(records)} records for {len(stack)} images; make the bank again"
        )
    name = file.relative_to(folder).as_posix()
    values = GrayValues(array) if array.dtype.kind in "uif" else None
    return [
        _read_plane(
            plane,
            name if single else f"{name}#{index:06d}",
            settings,
            records[index] if records else {},
            values,
        )
        for index, plane in enumerate(stack)
    ]


def _with_nodules(slices: list[ReadSlice], folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    """Adds a bank's labels to its slices, where it has some."""
    file = next((folder / name for name in LABELS if (folder / name).is_file()), None)
    if file is None:
        return slices
    with read_errors(file):
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    if len(values) != len(slices):
        raise UserError(f"{file}: {len(values)} entries for {len(slices)} images; make the bank again")
    least = LABELS[file.name]
    labels = [prepare_label((plane >= least).astype(np.uint8), settings) for plane in values]
    return [replace(each, label=label) for each, label in zip(slices, labels, strict=True)]


def _read_plane(
    plane: np.ndarray, name: str, settings: ReadingSettings, record: Any, values: GrayValues | None
) -> ReadSlice:
    offset = 0.0 if record else settings.hu_offset  # a bank's values are HU
    pixels = interpret_values(plane, name, offset, settings.source_range, values)
    patient = str(record.get("patient") or Path(name.partition("#")[0]).stem)
    return ReadSlice(prepare(pixels, settings), None, name, patient, patient, pixels.is_hu)


SHARD_SUFFIX = ".tar"
SUFFIXES = ("npy", "png", "nii.gz", "jpg", "jpeg")
DESCRIPTION = "composites.json"
"""File next to the shards that has the window of their pictures."""
MOST_BYTES = 2**28
"""Largest member of a shard: no slice is that large."""


def shard_files(folder: Path) -> list[Path]:
    """Returns the shards below ``folder``, sorted."""
    return [file for file in visible_files(folder) if has_suffix(file, SHARD_SUFFIX)]


def read_shards(folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    """Reads all samples of the shards below ``folder``, without unpacking them or running code in them.

    Raises:
        UserError: a damaged shard, or a sample without image.
    """
    window = _picture_window(folder)
    slices: list[ReadSlice] = []
    for path in shard_files(folder):
        try:
            with read_errors(path):
                for key, members in shard_samples(path):
                    name = f"{path.relative_to(folder).as_posix()}#{key}"
                    slices.append(_read_sample(name, members, settings, window))
        except tarfile.TarError as error:
            raise UserError(f"{path}: cannot be read ({error}); replace the shard or remove it") from error
    return slices


def shard_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Reads a tar shard: each sample's key and files by suffix, in order.

    Raises:
        tarfile.TarError, OSError: damaged.
        UserError: a member is larger than any slice.
    """
    key, files = "", dict[str, bytes]()
    with tarfile.open(path, "r|") as tar:
        for member in tar:
            if not member.isreg():
                continue
            if member.size > MOST_BYTES:
                raise UserError(
                    f"{path}: {member.name} has {member.size} bytes, which is no slice; restore the shard"
                )
            here, _, suffix = Path(member.name).name.partition(".")
            if here != key and files:
                yield key, files
                files = {}
            file = tar.extractfile(member)
            key, files[suffix] = here, b"" if file is None else file.read()
    if files:
        yield key, files


def _read_sample(
    name: str, files: Mapping[str, bytes], settings: ReadingSettings, window: Window | None
) -> ReadSlice:
    image, mask = _find_member(files, "image"), _find_member(files, "mask")
    if image is None:
        raise UserError(f"{name}: has no image among {', '.join(files)}; images are KEY.image.npy or .png")
    pixels = _decode_pixels(*image, name, window, settings)
    label = None if mask is None else (_decode(*mask) > 0).astype(np.uint8)
    if label is not None and label.shape != pixels.values.shape:
        raise UserError(
            f"{name}: the mask is {label.shape} but the image {pixels.values.shape}; make them again"
        )
    patient = _patient(json.loads(files["json"]) if "json" in files else {}, name)
    small = None if label is None else prepare_label(label, settings)
    return ReadSlice(prepare(pixels, settings), small, name, patient, patient, pixels.is_hu)


def _find_member(files: Mapping[str, bytes], what: str) -> tuple[bytes, str] | None:
    """Finds a sample's image or mask and its suffix; a file named by its suffix alone is the image."""
    names = [f"{what}.{kind}" for kind in SUFFIXES] + (list(SUFFIXES) if what == "image" else [])
    name = next((name for name in names if name in files), None)
    return None if name is None else (files[name], name.removeprefix(f"{what}."))


def _decode_pixels(
    content: bytes, kind: str, name: str, window: Window | None, settings: ReadingSettings
) -> Pixels:
    array = _decode(content, kind)
    if array.ndim != 2:
        raise UserError(f"{name}: the image has shape {array.shape}; slices are gray, (H, W)")
    pixels = interpret_values(array, name, settings.hu_offset, settings.source_range)
    if window is None or pixels.is_hu or kind in ("npy", "nii.gz"):
        return pixels
    lower, upper = pixels.source_range
    unit = (pixels.values - np.float32(lower)) / np.float32(upper - lower)
    return Pixels(unit * np.float32(window.width) + np.float32(window.lower), True, pixels.source_range)


def _decode(content: bytes, kind: str) -> np.ndarray:
    if kind == "npy":
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if kind == "nii.gz":
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        return np.asarray(image.dataobj).squeeze().T  # (W, H, 1) -> (H, W)
    with Image.open(io.BytesIO(content)) as picture:
        array = np.asarray(picture)
    return array.astype(np.uint16) if array.dtype == np.int32 else array  # PIL's type of 16-bit pictures


def _patient(record: Mapping[str, Any], name: str) -> str:
    """Returns the lung's patient; a sample without one is a patient of its own."""
    source = record.get("normal")
    return str((source if isinstance(source, Mapping) else record).get("patient") or name)


def _picture_window(folder: Path) -> Window | None:
    """Returns the HU of black and white in the shards' pictures; None where they are not given."""
    path = folder / DESCRIPTION
    limits = read_json(path).get("window_hu") if path.is_file() else None
    return None if limits is None else Window(float(limits[0]), float(limits[1]))
