"""Files of a folder as records: images, their labels and patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.data.image_layouts import AUTO, find_images
from common.data.layouts import (
    MASK_FOLDERS,
    detect_layout,
    expand,
    find_samples,
    find_volumes,
    images_below,
    mask_file,
    warn_of_left_out,
)
from common.data.patients import patient_of
from common.data.samples import Sample, is_volume, stem
from common.data.volume_io import volume_depth
from common.errors import UserError
from common.files import visible_files

IMAGES, PAIRS, STRUCTURES = "images", "pairs", "structures"
"""Kinds of data set: images alone, with lesion masks, with label maps of the heart."""
SHEETS = ("grid", "panel", "nearest", "curves")
"""Pictures that the bundles write next to their results; they are no images of the set."""
ALPHA_FOLDER = "alpha"
LABEL_FOLDERS = (*MASK_FOLDERS, ALPHA_FOLDER)
IMAGE_FOLDER, SAMPLE_FOLDER = "images", "samples"
LABELS_OF = {IMAGE_FOLDER: MASK_FOLDERS, SAMPLE_FOLDER: (ALPHA_FOLDER,)}
"""Folders that hold images, each with the folders next to it that hold their labels."""
HALF = 128
"""Of an alpha from 0 to 255: from this value on a pixel is nodule."""


def find_records(folder: Path, labels_folder: Path | None, patient_pattern: str | None) -> list[Sample]:
    """One record a file: synthetic images, or real ones whose labels are in another folder.

    Args:
        folder: searched to any depth; where it has ``images/``, only there, with labels from ``labels/`` or
            ``masks/`` next to it; nodules in ``samples/`` have their labels in ``alpha/``.
        labels_folder: labels of equal names; those of synthetic images may lack ``_variantNN``.
        patient_pattern: see `common.data.patients.patient_of`.
    Raises:
        UserError: no images, or one without label.
    """
    labels = labels_folder
    place = folder
    for name, label_folders in LABELS_OF.items():
        siblings = next((folder / label for label in label_folders if (folder / label).is_dir()), None)
        if (folder / name).is_dir() and (name == IMAGE_FOLDER or siblings is not None):
            place, labels = folder / name, labels or siblings
            break
    images = image_files(place)
    if not images:
        raise UserError(
            f"{folder}: no images found; put PNG, JPEG, NumPy, NIfTI, MHD or DICOM files or tar shards there"
        )
    records = [Sample(file, None, patient_of(file, patient_pattern)) for file in images]
    records = records if labels is None else add_labels(records, labels)
    sheets = [file for file in visible_files(place) if file.stem in SHEETS]
    warn_of_left_out(place, [*sheets, *(path for record in records for path in (record.image, record.mask))])
    return records


def find_real_records(
    folder: Path, kind: str, patient_pattern: str | None, info: Mapping[str, Any]
) -> list[Sample]:
    """Records of real images as the bundle's own training finds them; else of any folder of images.

    Args:
        kind: ``images``, ``pairs`` or ``structures``.
        info: the model's facts, see `common.inference.checkpoint.model_info`.
    """
    if info.get("condition") == "image":
        place = folder / info.get("image_dir", IMAGE_FOLDER)
        return find_records(place if place.is_dir() else folder, None, patient_pattern)
    if _has_layout(folder):
        finders: dict[str, Callable[[], list[Sample]]] = {
            PAIRS: lambda: find_samples(folder, patient_pattern=patient_pattern),
            STRUCTURES: lambda: find_volumes(folder, patient_pattern=patient_pattern),
            IMAGES: lambda: _find_classes(folder, patient_pattern, info),
        }
        return finders[kind]()
    depths = {len(file.relative_to(folder).parts) for file in image_files(folder)}
    if kind != STRUCTURES and depths in ({1}, {2}, {3}):
        return _find_classes(folder, patient_pattern, info)  # one folder, or one a class or patient, or both
    return find_records(folder, None, patient_pattern)


def image_files(folder: Path) -> list[Path]:
    """All images below ``folder`` (`common.data.layouts.images_below`) but labels and sheets."""
    return [image for image in images_below(folder) if _may_hold(image, folder)]


def files_below(folder: Path) -> list[Path]:
    """Files that may hold images, sorted by path."""
    return [file for file in visible_files(folder) if _may_hold(file, folder)]


def _may_hold(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.stem not in SHEETS and not set(LABEL_FOLDERS) & set(parts if path.is_dir() else parts[:-1])


def add_labels(records: list[Sample], folder: Path) -> list[Sample]:
    """The records, each with the label of equal name in ``folder``, or in its ``labels/`` or ``masks/``.

    Raises:
        UserError: no such folder, or an image without label.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder with the images' conditions")
    inner = next((folder / name for name in MASK_FOLDERS if (folder / name).is_dir()), folder)
    labels = {stem(file): file for file in images_below(inner)}
    result = []
    for record in records:
        name = stem(record.image)
        label = labels.get(name) or labels.get(name.rpartition("_variant")[0])
        if label is None:
            raise UserError(f"{record.image}: no label of that name in {folder}; add it or remove the image")
        sample = mask_file(label)
        if folder.name == ALPHA_FOLDER:
            sample = replace(sample, mask_threshold=HALF)
        result.append(replace(sample, image=record.image, patient=record.patient))
    return result


def expand_volumes(records: list[Sample], slices: str) -> list[Sample]:
    """One record for each slice of the volumes; only the slice nearest to the middle for ``central``."""
    samples = [
        sample for record in records for sample in (expand(record) if record.index is None else [record])
    ]
    if slices != "central":
        return samples
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


def _find_classes(folder: Path, patient_pattern: str | None, info: Mapping[str, Any]) -> list[Sample]:
    """Images of the classes that the model learned; all images where the folder has none of these."""
    images = find_images(folder, info.get("layout", AUTO), patient_pattern)
    own = set(info.get("classes", ())) & set(images.classes)
    return [sample for sample in images.samples if not own or sample.category in own]


def _has_layout(folder: Path) -> bool:
    try:
        detect_layout(folder)
    except UserError:
        return False
    return True
