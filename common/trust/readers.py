"""Reads any folder of images as a set of slices: pictures, volumes, NumPy arrays, tar shards."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from common.data.hu_calibration import GrayValues, calibrate
from common.data.image_io import EIGHT_BITS, SIXTEEN_BITS, Pixels, for_each, read_pair
from common.data.intensity import (
    WINDOWS,
    Standardiser,
    Window,
    to_network,
    to_unit,
    window_by_name,
)
from common.data.labels import LabelSet
from common.data.samples import Sample, has_suffix, is_volume, with_values
from common.data.slice_cache import CachedVolume, SliceCache, SliceReader, cached_pair
from common.data.slice_geometry import FileValues, fit_mask, fit_square
from common.errors import UserError, read_errors
from common.files import read_json, visible_files
from common.inference.datasets import geometry_of, intensity_of, label_set_of
from common.trust.image_files import (
    HALF,
    IMAGES,
    PAIRS,
    STRUCTURES,
    expand_volumes,
    files_below,
    find_real_records,
    find_records,
    name_of,
)
from common.trust.image_sets import ImageSet

__all__ = ["IMAGES", "PAIRS", "STRUCTURES", "ReadingSettings", "read_set"]

SLICES = ("auto", "all", "labelled", "central")
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
        slices: of volumes: ``labelled`` ones, the ``central`` one, or ``all``; ``auto`` takes the labelled
            ones where there are labels, else those that the data set's layout gives.
        kind: ``images``, ``pairs`` (with lesion masks) or ``structures`` (with label maps of the heart).
        standardiser: brings 8-bit slices to the intensity standard of the model's training.
        info: the model's facts, for ``structures``: geometry, intensities, classes.
    Raises:
        UserError: an unknown choice of slices, or an invalid size.

    Example:
        >>> ReadingSettings(64, fit="pad", slices="central").window
        Window(lower=-1000, upper=400)
    """

    image_size: int = DEFAULT_SIZE
    window: Window = WINDOWS["lung"]
    fit: str = "stretch"
    source_range: tuple[float, float] | None = None
    patient_pattern: str | None = None
    slices: str = "auto"
    kind: str = PAIRS
    standardiser: Standardiser | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    hu_offset: float | None = None
    mask_threshold: float | None = None
    ignore_value: int | Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.slices not in SLICES:
            raise UserError(f"slices {self.slices!r} is unknown; choose {', '.join(SLICES)}")
        if self.image_size < 1:
            raise UserError(f"image_size {self.image_size}: give the side of the slices in pixels")

    @classmethod
    def of(cls, info: Mapping[str, Any], **changes: Any) -> ReadingSettings:
        """The settings of a model's training.

        Args:
            info: the model's facts (`common.inference.checkpoint.model_info`); empty for the defaults.
            changes: attributes that replace those of the training.
        Raises:
            UserError: the model's images are not square.
        """
        state = info.get("standardiser")
        settings = cls(
            image_size=_side(info.get("image_size", DEFAULT_SIZE)),
            window=window_by_name(info.get("window_hu", "lung")),
            fit=info.get("fit", "stretch"),
            kind=_kind(info),
            slices="all" if info.get("layer") == "nodules" else "auto",  # one drawn without nodule counts too
            standardiser=None if state is None else Standardiser.from_state(state),
            patient_pattern=info.get("split", {}).get("patient_pattern"),
            info=info,
        )
        return replace(settings, **changes)

    @classmethod
    def of_any_generator(
        cls,
        window: Window | None = None,
        image_size: int | None = None,
    ) -> ReadingSettings:
        """The settings for any generator's images: padded to squares, nothing else changed.

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
    """The kind of the model's data set, by facts that only such a set writes."""
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
    """The slices in the model's intensity standard, scan by scan; HU are left alone."""
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


SUFFIX = ".npy"
BANK, RECORDS = "hu.npy", "records.json"
LABELS = {"alpha.npy": HALF, "nodules.npy": 1}
"""Files of a bank that mark nodules, with the value from which on a pixel is one."""
NETWORK = (-1.0, 1.0)


def read_arrays(folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    """All slices of the NumPy files below ``folder``; of a bank, its gray values with its nodules as labels.

    Raises:
        UserError: an unreadable file, another shape than (H, W), (N, H, W) or (N, 1, H, W), or NaN.
    """
    files = array_files(folder)
    if folder / BANK in files:
        slices = _read_array(folder / BANK, folder, settings, read_json(folder / RECORDS))
        return _with_nodules(slices, folder, settings)
    return [each for file in files for each in _read_array(file, folder, settings, ())]


def array_files(folder: Path) -> list[Path]:
    """The NumPy files below ``folder``."""
    return [file for file in files_below(folder) if has_suffix(file, SUFFIX)]


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
    found = calibrate(values_of_all or GrayValues(values), own, hu_offset, source_range, name)
    return Pixels(values + np.float32(found.offset), found.is_hu, found.source_range)


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
    """The shards below ``folder``, sorted."""
    return [file for file in visible_files(folder) if has_suffix(file, SHARD_SUFFIX)]


def read_shards(folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    """All samples of the shards below ``folder``; nothing is unpacked to disk and no code in them is run.

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
    """A sample's image or mask and its suffix; a file that is named by its suffix alone is the image."""
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
    """The lung's patient; a sample without one is a patient of its own."""
    source = record.get("normal")
    return str((source if isinstance(source, Mapping) else record).get("patient") or name)


def _picture_window(folder: Path) -> Window | None:
    """The HU of black and white in the shards' pictures; None where they are not given."""
    path = folder / DESCRIPTION
    limits = read_json(path).get("window_hu") if path.is_file() else None
    return None if limits is None else Window(float(limits[0]), float(limits[1]))


def structure_names(settings: ReadingSettings) -> Sequence[str]:
    """The model's structures; none where its condition is an image."""
    labels = label_set_of(settings.info)
    return () if labels is None else labels.classes


def read_structures(
    records: Sequence[Sample], folder: Path, settings: ReadingSettings, store: Path
) -> list[ReadSlice]:
    """The slices of volumes or pictures, with the classes of their label maps where they have any.

    Args:
        records: one a file, ``index`` None.
        store: an empty folder for what is converted.
    Raises:
        UserError: a bad file, a label on another grid, or label values that the model does not know.
    """
    label_set, intensity = label_set_of(settings.info), intensity_of(settings.info)
    masked = label_set is not None and all(record.mask is not None for record in records)
    values = FileValues.of(
        settings.hu_offset, settings.source_range, settings.mask_threshold, settings.ignore_value
    )
    image, label = values.image(intensity), values.label()
    images = [image(record.image, orientation=record.orientation) for record in records]
    labels = [
        label(record.mask, orientation=record.orientation)
        for record in records
        if masked and record.mask is not None
    ]
    stored = SliceCache(store, geometry_of(settings.info)).convert([*images, *labels])
    partners: Sequence[CachedVolume | None] = stored[len(records) :] or [None] * len(records)
    joined = zip(records, stored, partners, strict=False)
    return [
        each
        for record, image, label in joined
        for each in _read_cached(record, image, label, label_set, folder, settings.slices)
    ]


def _read_cached(
    record: Sample,
    image: CachedVolume,
    label: CachedVolume | None,
    label_set: LabelSet | None,
    folder: Path,
    which: str,
) -> Iterator[ReadSlice]:
    table = None if label is None else cached_pair(record, image, label, label_set).table
    reader = SliceReader()
    for index in [image.depth // 2] if which == "central" else range(image.depth):
        name = name_of(record, folder) + (f"#{index:03d}" if is_volume(record.image) else "")
        classes: np.ndarray | None = (
            None if label is None or table is None else table[reader.label(label, index)]
        )
        yield ReadSlice(reader.image(image, index), classes, name, record.unit, record.patient, image.is_hu)


LESION, NODULE = "lesion", "nodule"
LEAST = 2
"""Images that a set must have."""


def read_set(
    folder: str | os.PathLike[str],
    settings: ReadingSettings,
    labels_folder: str | os.PathLike[str] | None = None,
    synthetic: bool = False,
) -> ImageSet:
    """Reads all images of a folder.

    Args:
        settings: see `ReadingSettings.of` and `ReadingSettings.of_any_generator`.
        labels_folder: conditions of equal names, where they are not in the folder itself.
        synthetic: generated images: patients are not counted for them, each stands for itself.
    Raises:
        UserError: no such folder, fewer than two images, a file that cannot be read, NaN.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for index, name in enumerate(("a_1", "a_2", "b_1")):
        ...         noise = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        ...         Image.fromarray(noise).save(f"{folder}/{name}.png")
        ...     images = read_set(folder, ReadingSettings(8, kind="images", patient_pattern="(.)_"))
        >>> images.images.shape, images.patients
        (torch.Size([3, 1, 8, 8]), ['a', 'a', 'b'])
    """
    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"{place}: no such folder; give a folder with images")
    labels = None if labels_folder is None else Path(labels_folder)
    slices = _drop_empty(_read_folder(place, labels, settings, synthetic), place, settings.slices)
    if len(slices) < LEAST:
        raise UserError(f"{place}: holds {len(slices)} image; at least {LEAST} are needed")
    slices = standardize_slices(slices, settings.standardiser)
    return _join(slices, str(place), _structures(settings), synthetic)


def _read_folder(
    folder: Path, labels: Path | None, settings: ReadingSettings, synthetic: bool
) -> list[ReadSlice]:
    if shard_files(folder):
        return read_shards(folder, settings)
    if array_files(folder):
        return read_arrays(folder, settings)
    pattern = settings.patient_pattern
    if synthetic or labels is not None:
        records = find_records(folder, labels, pattern)
    else:
        records = find_real_records(folder, settings.kind, pattern, settings.info)
    records = with_values(
        records, settings.hu_offset, settings.source_range, settings.mask_threshold, settings.ignore_value
    )
    if settings.kind == STRUCTURES:
        with tempfile.TemporaryDirectory(prefix="slices-") as store:
            return read_structures(records, folder, settings, Path(store))
    return _read_files(expand_volumes(records, settings.slices), folder, settings)


def _read_files(samples: Sequence[Sample], folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    def load(sample: Sample) -> ReadSlice:
        pixels, mask = read_pair(sample)
        label = None if mask is None else prepare_label(mask, settings)
        unit, name = prepare(pixels, settings), name_of(sample, folder)
        return ReadSlice(unit, label, name, sample.unit, sample.patient, pixels.is_hu)

    return for_each(samples, load, "reading")


def _drop_empty(slices: list[ReadSlice], folder: Path, which: str) -> list[ReadSlice]:
    """Leaves out slices with an empty label, unless all are wanted."""
    if which not in ("auto", "labelled") or any(each.label is None for each in slices):
        if which == "labelled":
            raise UserError(f"{folder}: has images without labels; take slices auto, or give their labels")
        return slices
    kept = [each for each in slices if each.label is not None and each.label.any()]
    if not kept:
        raise UserError(f"{folder}: all {len(slices)} labels are empty; give labels that show something")
    return kept


def _structures(settings: ReadingSettings) -> Sequence[str]:
    if settings.kind == STRUCTURES:
        return structure_names(settings)
    return (NODULE if "layer" in settings.info else LESION,)


def _join(slices: Sequence[ReadSlice], folder: str, structures: Sequence[str], synthetic: bool) -> ImageSet:
    images = to_network(np.stack([each.unit for each in slices])[:, None])  # (N, 1, S, S)
    masks = [each.label for each in slices if each.label is not None]
    labels = np.stack(masks)[:, None].astype(np.float32) if len(masks) == len(slices) else None
    names = [each.name for each in slices]
    return ImageSet(
        torch.from_numpy(images),
        names if synthetic else _patients(slices),
        names,
        None if labels is None else torch.from_numpy(labels),
        () if labels is None else tuple(structures),
        folder,
        names if synthetic else [each.scan for each in slices],
    )


def _patients(slices: Sequence[ReadSlice]) -> list[str]:
    """Patient ids, each the first of a person's scans: a person's number holds in one folder only."""
    scans: dict[str, str] = {}
    for each in slices:
        scans[each.patient] = min(scans.get(each.patient, each.scan), each.scan)
    return [scans[each.patient] for each in slices]
