"""Which files a folder of images holds: one record a file or slice, with its patient and its label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.data.folders import MASK_FOLDERS
from common.data.image_layouts import AUTO, find_images
from common.data.layouts import detect_layout, expand, find_samples, find_volumes, mask_file
from common.data.patients import patient_of, series_of
from common.data.pictures import PICTURE_SUFFIXES
from common.data.samples import Sample, stem
from common.data.volume_files import DICOM_SUFFIXES, VOLUME_SUFFIXES, is_volume
from common.data.volumes import volume_depth
from common.errors import UserError
from common.trust.settings import IMAGES, PAIRS, STRUCTURES, ReadingSettings

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
