"""A slice on its way into a set of images."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from common.data.image_io import EIGHT_BITS, PICTURE_SUFFIXES, SIXTEEN_BITS, Pixels, for_each, read_pair
from common.data.image_layouts import AUTO, find_images
from common.data.intensity import (
    WINDOWS,
    Window,
    offset_to_hu,
    to_network,
    to_unit,
    value_range,
    window_by_name,
)
from common.data.intensity_standardization import Standardiser
from common.data.labels import LabelSet
from common.data.layouts import MASK_FOLDERS, detect_layout, expand, find_samples, find_volumes, mask_file
from common.data.patients import patient_of, series_of
from common.data.samples import Sample, stem, with_hu_offset
from common.data.slice_cache import CachedVolume, SliceCache, SliceReader, cached_pair
from common.data.slice_geometry import Request
from common.data.transforms import fit_mask, fit_square
from common.data.volume_io import DICOM_SUFFIXES, VOLUME_SUFFIXES, is_volume, volume_depth
from common.errors import UserError, read_errors
from common.files import read_json
from common.inference.datasets import geometry_of, intensity_of, label_set_of
from common.trust.image_sets import ImageSet

IMAGES, PAIRS, STRUCTURES = "images", "pairs", "structures"
SLICES = ("auto", "all", "labelled", "central")
DEFAULT_SIZE = 128


@dataclass(frozen=True)
class ReadingSettings:
    """What becomes of a file on its way to a network.

    Attributes:
        image_size: S in pixels.
        window: HU that become -1 and 1.
        fit: how slices become square, see `common.data.transforms.fit_square`.
        source_range: black and white of files that are not HU; None for their type's full range.
        hu_offset: what to add to values that are no HU, see `common.data.intensity.offset_to_hu`.
        patient_pattern: see `common.data.patients.whose`; None for the field's ways of naming.
        slices: of volumes: ``labelled`` ones, the ``central`` one, or ``all``; ``auto`` takes the labelled
            ones where there are labels, else those that the data set's layout gives.
        kind: ``images``, ``pairs`` (with lesion masks) or ``structures`` (with label maps of the heart).
        standardiser: brings 8-bit slices to the look that the model learned.
        info: what stands beside the model, for ``structures``: geometry, intensities, classes.
    Raises:
        UserError: an unknown choice of slices, or a size that is none.
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

    def __post_init__(self) -> None:
        if self.slices not in SLICES:
            raise UserError(f"slices {self.slices!r} is unknown; choose {', '.join(SLICES)}")
        if self.image_size < 1:
            raise UserError(f"image_size {self.image_size}: give the side of the slices in pixels")

    @classmethod
    def of(cls, info: Mapping[str, Any], **changes: Any) -> ReadingSettings:
        """The settings of a model's training.

        Args:
            info: what stands beside the model (`common.inference.checkpoint.model_info`); empty for the
            defaults. changes: attributes that are to be others.
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
        """The settings for images of a generator that is no bundle: padded to squares, nothing else changed.

        Args:
            window: HU that become -1 and 1; None for ``lung``.
            image_size: S in pixels; None for `DEFAULT_SIZE`.
        Raises:
            UserError: a size that is none.
        """
        return cls(
            image_size=DEFAULT_SIZE if image_size is None else image_size,
            window=window or WINDOWS["lung"],
            fit="pad",
        )


def _kind(info: Mapping[str, Any]) -> str:
    """What the model's data set was, by entries that only such a set writes."""
    if "intensity" in info:
        return STRUCTURES
    if "empty_masks" in info:
        return PAIRS
    return IMAGES if "fit" in info or "layer" in info else PAIRS  # older pairs said neither


def _side(size: Any) -> int:
    """``S`` or ``[S, S]`` as S."""
    sides = {int(side) for side in (size if isinstance(size, list | tuple) else [size])}
    if len(sides) != 1:
        raise UserError(f"image_size {size}: the trust report takes models of square images")
    return sides.pop()


@dataclass(frozen=True)
class Loaded:
    """One slice, ready but for its look.

    Attributes:
        unit: float32 (S, S) in [0, 1].
        label: uint8 (S, S); None without.
        name: see `common.trust.image_sets.ImageSet`.
        patient: or person, where several scans are known to be of one.
        scan: the patient's id in the files' names.
        is_hu: whether the values are calibrated HU.
    """

    unit: np.ndarray
    label: np.ndarray | None
    name: str
    patient: str
    scan: str
    is_hu: bool


def prepared(pixels: Pixels, settings: ReadingSettings) -> np.ndarray:
    """Gray values (H, W) of any kind as the square (S, S) in [0, 1] that the network sees."""
    lower, upper = pixels.source_range if settings.source_range is None else settings.source_range
    unit = to_unit(pixels.values, settings.window, pixels.is_hu, (float(lower), float(upper)))
    return fit_square(unit, settings.image_size, settings.fit)


def prepared_label(label: np.ndarray, settings: ReadingSettings) -> np.ndarray:
    """A label (H, W) as uint8 (S, S), placed as its image; no new values."""
    return fit_mask(label, settings.image_size, settings.fit)


def standardised(slices: Sequence[Loaded], standardiser: Standardiser | None) -> list[Loaded]:
    """The slices in the look that the model learned, scan by scan; HU are left alone."""
    result = list(slices)
    scans: dict[str, list[int]] = defaultdict(list)
    for place, loaded in enumerate(slices):
        if not loaded.is_hu:
            scans[loaded.scan].append(place)
    if standardiser is None:
        return result
    for places in scans.values():
        looks = standardiser.apply_scan([slices[place].unit for place in places])
        for place, look in zip(places, looks, strict=True):
            result[place] = replace(slices[place], unit=look)
    return result


SHEETS = ("grid", "panel", "nearest", "curves")
"""Pictures that the bundles put beside their results; no images of the set."""
ALPHA_FOLDER = "alpha"
BESIDE = (*MASK_FOLDERS, ALPHA_FOLDER)
"""Folders of what belongs to images."""
IMAGE_FOLDER, SAMPLE_FOLDER = "images", "samples"
LABELS_OF = {IMAGE_FOLDER: MASK_FOLDERS, SAMPLE_FOLDER: (ALPHA_FOLDER,)}
"""Where images may lie, and their labels beside them."""
HALF = 128
"""Of an alpha of 0 to 255: from here on a pixel is nodule."""


def found(folder: Path, labels_folder: Path | None, settings: ReadingSettings) -> list[Sample]:
    """One record a file: synthetic images, or real ones whose labels are in another folder.

    Args:
        folder: searched to any depth; where it has ``images/``, only there, with labels from ``labels/`` or
            ``masks/`` beside that; of nodules in ``samples/`` their ``alpha/``.
        labels_folder: labels of equal names; those of synthetic images may lack ``_variantNN``.
    Raises:
        UserError: no images, or one without label.
    """
    place, beside = _place_and_labels(folder)
    images = image_files(place)
    if not images:
        raise UserError(
            f"{folder}: no images found; put PNG, JPEG, NumPy, NIfTI, MHD or DICOM files or tar shards there"
        )
    labels = labels_folder if labels_folder is not None else beside
    records = [Sample(file, None, patient_of(file, settings.patient_pattern)) for file in images]
    return records if labels is None else labelled(records, labels)


def _place_and_labels(folder: Path) -> tuple[Path, Path | None]:
    for name, beside in LABELS_OF.items():
        labels = next((folder / label for label in beside if (folder / label).is_dir()), None)
        if (folder / name).is_dir() and (name == IMAGE_FOLDER or labels is not None):
            return folder / name, labels
    return folder, None


def data_set(folder: Path, settings: ReadingSettings) -> list[Sample]:
    """The records of real images, as the bundle's own training finds them; any folder of images else."""
    pattern = settings.patient_pattern
    if settings.info.get("condition") == "image":
        place = folder / settings.info.get("image_dir", IMAGE_FOLDER)
        return found(place if place.is_dir() else folder, None, settings)
    if _has_layout(folder):
        finders: dict[str, Callable[[], list[Sample]]] = {
            PAIRS: lambda: find_samples(folder, patient_pattern=pattern),
            STRUCTURES: lambda: find_volumes(folder, patient_pattern=pattern),
            IMAGES: lambda: _of_classes(folder, settings),
        }
        return finders[settings.kind]()
    depths = {_depth(file, folder) for file in image_files(folder)}
    if settings.kind != STRUCTURES and depths in ({1}, {2}, {3}):
        return _of_classes(folder, settings)  # one folder, or one a class or patient, or both
    return found(folder, None, settings)


def image_files(folder: Path) -> list[Path]:
    """All images below ``folder``, sorted; no hidden ones, no labels, no sheets.

    A folder with the slices of one DICOM series is one image: the folder itself. DICOM files of several
    series in one folder are single images.
    """
    known = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
    files = [file for file in files_below(folder) if file.name.lower().endswith(known)]
    places = {file.parent for file in files if file.name.lower().endswith(DICOM_SUFFIXES)}
    series = {place for place in places if series_of(place)}
    return sorted({file.parent if file.parent in series else file for file in files})


def files_below(folder: Path) -> list[Path]:
    """Files that may hold images, sorted by path."""
    return sorted(
        file for file in folder.rglob("*") if file.is_file() and _is_image(file.relative_to(folder))
    )


def labelled(records: list[Sample], folder: Path) -> list[Sample]:
    """The records, each with the label of equal name in ``folder``.

    Raises:
        UserError: no such folder, or an image without label.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder with the images' conditions")
    labels = {stem(file): file for file in _label_files(folder)}
    return [_with_label(record, labels, folder) for record in records]


def spread(records: list[Sample], slices: str) -> list[Sample]:
    """One record for each slice of the volumes."""
    samples = [
        sample for record in records for sample in (expand(record) if record.index is None else [record])
    ]
    return _central(samples) if slices == "central" else samples


def _central(samples: list[Sample]) -> list[Sample]:
    """Of each volume the slice that is nearest to its middle."""
    best: dict[Path, Sample] = {}
    for sample in samples:
        middle = volume_depth(sample.image) // 2 if is_volume(sample.image) else 0
        known = best.setdefault(sample.image, sample)
        if abs((sample.index or 0) - middle) < abs((known.index or 0) - middle):
            best[sample.image] = sample
    return list(best.values())


def name_of(sample: Sample, folder: Path) -> str:
    """The file's path in its folder, with ``#012`` for slice 12 of a volume."""
    name = sample.image.relative_to(folder) if sample.image.is_relative_to(folder) else sample.image
    return name.as_posix() if sample.index is None else f"{name.as_posix()}#{sample.index:03d}"


def _with_label(record: Sample, labels: dict[str, Path], folder: Path) -> Sample:
    name = stem(record.image)
    label = labels.get(name) or labels.get(name.rpartition("_variant")[0])
    if label is None:
        raise UserError(f"{record.image}: no label of that name in {folder}; add it or remove the image")
    convention = mask_file(label)
    if folder.name == ALPHA_FOLDER:
        convention = replace(convention, mask_threshold=HALF)
    return replace(convention, image=record.image, patient=record.patient)


def _label_files(folder: Path) -> list[Path]:
    """Labels lie one deep, or in ``labels/``, ``masks/`` of a set, or in a folder of their kind."""
    known = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
    inner = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), folder)
    return sorted(file for file in inner.rglob("*") if file.name.lower().endswith(known))


def _of_classes(folder: Path, settings: ReadingSettings) -> list[Sample]:
    """Images of the classes that the model learned; all where the folder has none of these."""
    images = find_images(folder, settings.info.get("layout", AUTO), settings.patient_pattern)
    own = set(settings.info.get("classes", ())) & set(images.classes)
    return [sample for sample in images.samples if not own or sample.category in own]


def _has_layout(folder: Path) -> bool:
    try:
        detect_layout(folder)
    except UserError:
        return False
    return True


def _depth(file: Path, folder: Path) -> int:
    return len(file.relative_to(folder).parts)


def _is_image(file: Path) -> bool:
    """Of a path below the folder."""
    hidden = any(part.startswith(".") for part in file.parts)
    return not hidden and file.stem not in SHEETS and not set(BESIDE) & set(file.parts[:-1])


SUFFIX = ".npy"
BANK, RECORDS = "hu.npy", "records.json"
LABELS = {"alpha.npy": HALF, "nodules.npy": 1}
"""Of a bank: the file that says where nodules are, and the value from which on a pixel is one."""
NETWORK = (-1.0, 1.0)


def array_slices(folder: Path, settings: ReadingSettings) -> list[Loaded]:
    """All slices of the NumPy files below ``folder``; of a bank, its gray values with its nodules as labels.

    Raises:
        UserError: an unreadable file, another shape than (H, W), (N, H, W) or (N, 1, H, W), or NaN.
    """
    files = array_files(folder)
    if folder / BANK in files:
        slices = _of_file(folder / BANK, folder, settings, read_json(folder / RECORDS))
        return _with_nodules(slices, folder, settings)
    return [loaded for file in files for loaded in _of_file(file, folder, settings, ())]


def array_files(folder: Path) -> list[Path]:
    """The NumPy files below ``folder``."""
    return [file for file in files_below(folder) if file.suffix == SUFFIX]


def meaning(array: np.ndarray, name: object, hu_offset: float | None = None) -> Pixels:
    """What an array's values are: int16 are HU; uint8 and uint16 use their type's range; real numbers lie in
    0..1, in -1..1 as a network has them, or are HU.

    Args:
        array: (H, W).
        name: of the file, for messages.
        hu_offset: see `common.data.intensity.offset_to_hu`.
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
    if array.dtype == np.uint8 or array.dtype == np.uint16:
        return Pixels(values, False, EIGHT_BITS if array.dtype == np.uint8 else SIXTEEN_BITS)
    lowest, highest = float(values.min()), float(values.max())
    if array.dtype.kind == "f" and lowest >= -1 and highest <= 1:
        return Pixels(values, False, (0.0, 1.0) if lowest >= 0 else NETWORK)
    offset = offset_to_hu(value_range(values), hu_offset, name)
    return Pixels(values + np.float32(offset), True, EIGHT_BITS)


def _of_file(file: Path, folder: Path, settings: ReadingSettings, records: Any) -> list[Loaded]:
    with read_errors(file):
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]  # (N, 1, H, W) -> (N, H, W)
    if array.ndim not in (2, 3) or array.size == 0:
        raise UserError(f"{file}: has shape {array.shape}; save images as (H, W) or (N, H, W)")
    stack, single = (array[None], True) if array.ndim == 2 else (array, False)
    if len(records) not in (0, len(stack)):
        raise UserError(
            f"{folder / RECORDS}: {len(records)} records for {len(stack)} images; make the bank anew"
        )
    name = file.relative_to(folder).as_posix()
    return [
        _loaded(plane, name if single else f"{name}#{place:06d}", settings, records[place] if records else {})
        for place, plane in enumerate(stack)
    ]


def _with_nodules(slices: list[Loaded], folder: Path, settings: ReadingSettings) -> list[Loaded]:
    """A bank's slices with their labels, where it has some."""
    file = next((folder / name for name in LABELS if (folder / name).is_file()), None)
    if file is None:
        return slices
    with read_errors(file):
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    if len(values) != len(slices):
        raise UserError(f"{file}: {len(values)} entries for {len(slices)} images; make the bank anew")
    least = LABELS[file.name]
    labels = [prepared_label((plane >= least).astype(np.uint8), settings) for plane in values]
    return [replace(loaded, label=label) for loaded, label in zip(slices, labels, strict=True)]


def _loaded(plane: np.ndarray, name: str, settings: ReadingSettings, record: Any) -> Loaded:
    pixels = meaning(plane, name, 0.0 if record else settings.hu_offset)  # a bank's values are HU
    patient = str(record.get("patient") or Path(name.partition("#")[0]).stem)
    return Loaded(prepared(pixels, settings), None, name, patient, patient, pixels.is_hu)


SHARD_SUFFIX = ".tar"
SUFFIXES = ("npy", "png", "nii.gz", "jpg", "jpeg")
DESCRIPTION = "composites.json"
"""Beside the shards: the window of their pictures."""
MOST_BYTES = 2**28
"""Of one member: no slice is that large."""


def shard_files(folder: Path) -> list[Path]:
    """The shards below ``folder``, sorted."""
    return sorted(path for path in folder.rglob(f"*{SHARD_SUFFIX}") if path.is_file())


def shard_slices(folder: Path, settings: ReadingSettings) -> list[Loaded]:
    """All samples of the shards below ``folder``. Nothing is unpacked to disk, and nothing in them is run.

    Raises:
        UserError: a damaged shard, or a sample without image.
    """
    window = _picture_window(folder)
    slices: list[Loaded] = []
    for path in shard_files(folder):
        try:
            with read_errors(path):
                for key, members in samples(path):
                    name = f"{path.relative_to(folder).as_posix()}#{key}"
                    slices.append(_loaded_sample(name, members, settings, window))
        except tarfile.TarError as error:
            raise UserError(f"{path}: cannot be read ({error}); replace the shard or remove it") from error
    return slices


def samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each sample's key and files by suffix, in order.

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


def _loaded_sample(
    name: str, files: Mapping[str, bytes], settings: ReadingSettings, window: Window | None
) -> Loaded:
    image, mask = _part(files, "image"), _part(files, "mask")
    if image is None:
        raise UserError(f"{name}: has no image among {', '.join(files)}; images are KEY.image.npy or .png")
    pixels = _pixels(*image, name, window, settings.hu_offset)
    label = None if mask is None else (_array(*mask) > 0).astype(np.uint8)
    if label is not None and label.shape != pixels.values.shape:
        raise UserError(
            f"{name}: the mask is {label.shape} but the image {pixels.values.shape}; make them anew"
        )
    patient = _patient(json.loads(files["json"]) if "json" in files else {}, name)
    small = None if label is None else prepared_label(label, settings)
    return Loaded(prepared(pixels, settings), small, name, patient, patient, pixels.is_hu)


def _part(files: Mapping[str, bytes], what: str) -> tuple[bytes, str] | None:
    """A sample's image or mask and the suffix of its kind; a file with no name but its kind is the image."""
    names = [f"{what}.{kind}" for kind in SUFFIXES] + (list(SUFFIXES) if what == "image" else [])
    name = next((name for name in names if name in files), None)
    return None if name is None else (files[name], name.removeprefix(f"{what}."))


def _pixels(content: bytes, kind: str, name: str, window: Window | None, hu_offset: float | None) -> Pixels:
    array = _array(content, kind)
    if array.ndim != 2:
        raise UserError(f"{name}: the image has shape {array.shape}; slices are gray, (H, W)")
    pixels = meaning(array, name, hu_offset)
    if window is None or pixels.is_hu or kind in ("npy", "nii.gz"):
        return pixels
    lower, upper = pixels.source_range
    unit = (pixels.values - np.float32(lower)) / np.float32(upper - lower)
    return Pixels(unit * np.float32(window.width) + np.float32(window.lower), True, pixels.source_range)


def _array(content: bytes, kind: str) -> np.ndarray:
    if kind == "npy":
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if kind == "nii.gz":
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        return np.asarray(image.dataobj).squeeze().T  # (W, H, 1) -> (H, W)
    with Image.open(io.BytesIO(content)) as picture:
        array = np.asarray(picture)
    return array.astype(np.uint16) if array.dtype == np.int32 else array  # PIL's type of 16-bit pictures


def _patient(record: Mapping[str, Any], name: str) -> str:
    """Whose lung it is; a sample that does not say so is a patient of its own."""
    source = record.get("normal")
    return str((source if isinstance(source, Mapping) else record).get("patient") or name)


def _picture_window(folder: Path) -> Window | None:
    """The HU of black and white in the shards' pictures; None where nothing says so."""
    path = folder / DESCRIPTION
    limits = read_json(path).get("window_hu") if path.is_file() else None
    return None if limits is None else Window(float(limits[0]), float(limits[1]))


def structure_names(settings: ReadingSettings) -> Sequence[str]:
    """The model's structures; none where its condition is an image."""
    labels = label_set_of(settings.info)
    return () if labels is None else labels.classes


def structure_slices(
    records: Sequence[Sample], folder: Path, settings: ReadingSettings, store: Path
) -> list[Loaded]:
    """The slices of volumes or pictures, with the classes of their label maps where they have any.

    Args:
        records: one a file, ``index`` None.
        store: an empty folder for what is converted.
    Raises:
        UserError: a bad file, a label on another grid, or with values that mean nothing to the model.
    """
    label_set, intensity = label_set_of(settings.info), intensity_of(settings.info)
    masked = label_set is not None and all(record.mask is not None for record in records)
    images = [
        Request(record.image, "image", intensity, record.orientation, record.hu_offset) for record in records
    ]
    labels = [
        Request(record.mask, "label", None, record.orientation)
        for record in records
        if masked and record.mask is not None
    ]
    stored = SliceCache(store, geometry_of(settings.info)).convert([*images, *labels])
    partners: Sequence[CachedVolume | None] = stored[len(records) :] or [None] * len(records)
    joined = zip(records, stored, partners, strict=False)
    return [
        loaded
        for record, image, label in joined
        for loaded in _of_stored_file(record, image, label, label_set, folder, settings.slices)
    ]


def _of_stored_file(
    record: Sample,
    image: CachedVolume,
    label: CachedVolume | None,
    label_set: LabelSet | None,
    folder: Path,
    which: str,
) -> Iterator[Loaded]:
    table = None if label is None else cached_pair(record, image, label, label_set).table
    reader = SliceReader()
    for index in [image.depth // 2] if which == "central" else range(image.depth):
        name = name_of(record, folder) + (f"#{index:03d}" if is_volume(record.image) else "")
        classes: np.ndarray | None = (
            None if label is None or table is None else table[reader.label(label, index)]
        )
        yield Loaded(reader.image(image, index), classes, name, record.unit, record.patient, image.is_hu)


__all__ = ["ReadingSettings", "read_set"]
LESION, NODULE = "lesion", "nodule"
LEAST = 2
"""Images; with fewer nothing can be said of a set."""


def read_set(
    folder: str | os.PathLike[str],
    settings: ReadingSettings,
    labels_folder: str | os.PathLike[str] | None = None,
    synthetic: bool = False,
) -> ImageSet:
    """All images of a folder.

    Args:
        settings: how, see `ReadingSettings.of`.
        labels_folder: conditions of equal names, where they are not in the folder itself.
        synthetic: generated images: each is a patient of its own, and they may look alike.
    Raises:
        UserError: no such folder, fewer than two images, a file that cannot be read, NaN.
    """
    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"{place}: no such folder; give a folder with images")
    labels = None if labels_folder is None else Path(labels_folder)
    slices = _with_labels(_slices(place, labels, settings, synthetic), place, settings.slices)
    if len(slices) < LEAST:
        raise UserError(f"{place}: holds {len(slices)} image; at least {LEAST} are needed")
    looks = standardised(slices, settings.standardiser)
    return _joined(looks, str(place), _structures(settings), synthetic)


def _slices(folder: Path, labels: Path | None, settings: ReadingSettings, synthetic: bool) -> list[Loaded]:
    if shard_files(folder):
        return shard_slices(folder, settings)
    if array_files(folder):
        return array_slices(folder, settings)
    records = (
        found(folder, labels, settings) if synthetic or labels is not None else data_set(folder, settings)
    )
    records = with_hu_offset(records, settings.hu_offset)
    if settings.kind == STRUCTURES:
        with tempfile.TemporaryDirectory(prefix="slices-") as store:
            return structure_slices(records, folder, settings, Path(store))
    return _file_slices(spread(records, settings.slices), folder, settings)


def _file_slices(samples: Sequence[Sample], folder: Path, settings: ReadingSettings) -> list[Loaded]:
    def load(sample: Sample) -> Loaded:
        pixels, mask = read_pair(sample)
        label = None if mask is None else prepared_label(mask, settings)
        unit, name = prepared(pixels, settings), name_of(sample, folder)
        return Loaded(unit, label, name, sample.unit, sample.patient, pixels.is_hu)

    return for_each(samples, load, "reading")


def _with_labels(slices: list[Loaded], folder: Path, which: str) -> list[Loaded]:
    """Without those whose label is empty, unless all are wanted."""
    if which not in ("auto", "labelled") or any(loaded.label is None for loaded in slices):
        if which == "labelled":
            raise UserError(f"{folder}: has images without labels; take slices auto, or give their labels")
        return slices
    kept = [loaded for loaded in slices if loaded.label is not None and loaded.label.any()]
    if not kept:
        raise UserError(f"{folder}: all {len(slices)} labels are empty; give labels that show something")
    return kept


def _structures(settings: ReadingSettings) -> Sequence[str]:
    if settings.kind == STRUCTURES:
        return structure_names(settings)
    return (NODULE if "layer" in settings.info else LESION,)


def _joined(slices: Sequence[Loaded], folder: str, structures: Sequence[str], synthetic: bool) -> ImageSet:
    images = to_network(np.stack([loaded.unit for loaded in slices])[:, None])  # (N, 1, S, S)
    masks = [loaded.label for loaded in slices if loaded.label is not None]
    labels = np.stack(masks)[:, None].astype(np.float32) if len(masks) == len(slices) else None
    names = [loaded.name for loaded in slices]
    return ImageSet(
        torch.from_numpy(images),
        names if synthetic else _patients(slices),
        names,
        None if labels is None else torch.from_numpy(labels),
        () if labels is None else tuple(structures),
        folder,
        names if synthetic else [loaded.scan for loaded in slices],
    )


def _patients(slices: Sequence[Loaded]) -> list[str]:
    """Who is who, by the first of a person's scans: numbers of persons mean something in one folder only."""
    scans: dict[str, str] = {}
    for loaded in slices:
        scans[loaded.patient] = min(scans.get(loaded.patient, loaded.scan), loaded.scan)
    return [scans[loaded.patient] for loaded in slices]
