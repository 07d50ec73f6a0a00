"""The sets of images that a trust report compares: reading a folder as a set, splits by patient."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.data.image_io import for_each, read_pair
from common.data.image_layouts import AUTO, find_images
from common.data.intensity import to_network
from common.data.labels import LabelSet
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
from common.data.samples import Sample, is_volume, stem, with_values
from common.data.slice_cache import CachedVolume, SliceCache, SliceReader, cached_pair
from common.data.slice_geometry import FileValues
from common.errors import UserError
from common.files import visible_files
from common.inference.datasets import geometry_of, intensity_of, label_set_of
from common.rng import make_rng
from common.trust.readers import (
    ALPHA_FOLDER,
    ALPHA_THRESHOLD,
    IMAGES,
    PAIRS,
    SHEETS,
    STRUCTURES,
    ReadingSettings,
    ReadSlice,
    array_files,
    may_hold_images,
    prepare,
    prepare_label,
    read_arrays,
    read_shards,
    shard_files,
    standardize_slices,
)

LESION, NODULE = "lesion", "nodule"
LEAST = 2
"""Images that a set must have."""
IMAGE_FOLDER, SAMPLE_FOLDER = "images", "samples"
LABELS_OF = {IMAGE_FOLDER: MASK_FOLDERS, SAMPLE_FOLDER: (ALPHA_FOLDER,)}
"""Folders that hold images, each with the folders next to it that hold their labels."""


@dataclass(frozen=True)
class ImageSet:
    """Slices as a bundle's network sees them.

    Attributes:
        images: float32 (N, 1, S, S) in [-1, 1].
        patients: one id an image; synthetic images each have their own.
        names: paths in ``folder``, with ``#PART`` for a part of a file.
        labels: conditions (N, 1, S, S): {0, 1} masks, or indices of structures; None without.
        structures: names of the label values from 1 on; one for masks.
        folder: of the files.
        scans: the patients as a model's splits name them, where several are known to be one person; () for
            ``patients``.

    Example:
        >>> images = ImageSet(torch.zeros(3, 1, 8, 8), ["a", "a", "b"], ["a1.png", "a2.png", "b1.png"])
        >>> images.select([2]).patients
        ['b']
    """

    images: Tensor
    patients: Sequence[str]
    names: Sequence[str]
    labels: Tensor | None = None
    structures: Sequence[str] = ()
    folder: str = ""
    scans: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def volumes(self) -> list[str] | None:
        """The file of each image, where files hold several: slices of one volume are not independent."""
        files = [name.split("#")[0] for name in self.names]
        return files if len(set(files)) < len(files) else None

    def select(self, indices: Sequence[int]) -> ImageSet:
        """Returns the images with these indices, in this order."""
        taken = list(indices)
        return replace(
            self,
            images=self.images[taken],
            patients=[self.patients[index] for index in taken],
            names=[self.names[index] for index in taken],
            labels=None if self.labels is None else self.labels[taken],
            scans=[self.scans[index] for index in taken] if self.scans else (),
        )


@dataclass(frozen=True)
class Sets:
    """The three sets of a report.

    Attributes:
        real: images that the generator was, or could have been, trained on.
        heldout: real images of other patients.
        synthetic: the generator's images.
    """

    real: ImageSet
    heldout: ImageSet
    synthetic: ImageSet


def labels_of(images: ImageSet) -> Tensor:
    """Returns the labels of a set that has some."""
    if images.labels is None:
        raise ValueError(f"{images.folder}: no labels")
    return images.labels


def join_sets(first: ImageSet, second: ImageSet) -> ImageSet:
    """Joins two sets, with labels if both have some."""
    labels = None
    if first.labels is not None and second.labels is not None:
        labels = torch.cat([first.labels, second.labels])
    return ImageSet(
        torch.cat([first.images, second.images]),
        [*first.patients, *second.patients],
        [*first.names, *second.names],
        labels,
        first.structures,
    )


def split_by_patient(
    real: ImageSet, seed: int = 0, training: Collection[str] = ()
) -> tuple[ImageSet, ImageSet]:
    """Splits real images by patient into `Sets.real` and `Sets.heldout`.

    Args:
        real: all of them.
        seed: another seed gives another split; the order of the images does not matter.
        training: the patients that the model learned from, where they are known (``splits`` in its
            metadata): they become `Sets.real`. Without them patients are drawn until half of the images are
            held out, and results on copies hold only if the model was trained on the other half alone.
    Raises:
        UserError: one patient only, or the training patients are all or none of them.

    Example:
        >>> images = ImageSet(torch.zeros(4, 1, 8, 8), ["a", "a", "b", "c"], ["1", "2", "3", "4"])
        >>> real, heldout = split_by_patient(images, training=["a"])
        >>> real.names, heldout.names
        (['1', '2'], ['3', '4'])
    """
    known = set(training)
    scans = real.scans or real.patients
    kept = {patient for patient, scan in zip(real.patients, scans, strict=True) if scan in known}
    if not known:
        kept = _drawn(real.patients, seed)
    here = [index for index, patient in enumerate(real.patients) if patient in kept]
    there = [index for index, patient in enumerate(real.patients) if patient not in kept]
    if not here or not there:
        which = "all" if here else "none"
        problem = f"{which} of them among the model's training patients" if known else "which cannot be split"
        raise UserError(
            f"{real.folder or 'the real images'}: {len(set(real.patients))} patients, {problem}; "
            "give other patients' images with --heldout"
        )
    return real.select(here), real.select(there)


def _drawn(patients: Sequence[str], seed: int) -> set[str]:
    """Draws patients with about half of the images: the next one goes where fewer are."""
    names = sorted(set(patients))
    counts = Counter(patients)
    kept: set[str] = set()
    balance = 0
    for index in make_rng(seed, "trust", "split").permutation(len(names)):
        name = names[index]
        if balance <= 0:
            kept.add(name)
        balance += counts[name] if name in kept else -counts[name]
    return kept


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
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for index, name in enumerate(("a_1", "a_2", "b_1")):
        ...         noise = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        ...         Image.fromarray(noise).save(f"{folder}/{name}.png")
        ...     images = read_set(folder, ReadingSettings(8, kind="images", patient_pattern="(.)_"))
        >>> images.images.shape, images.patients
        (torch.Size([3, 1, 8, 8]), ['a', 'a', 'b'])
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give a folder with images")
    labels = None if labels_folder is None else Path(labels_folder)
    slices = _read_folder(path, labels, settings, synthetic)
    if not settings.empty_labels:
        slices = _drop_empty(slices, path)
    if len(slices) < LEAST:
        raise UserError(f"{path}: holds {len(slices)} image; at least {LEAST} are needed")
    slices = standardize_slices(slices, settings.standardiser)
    return _join(slices, str(path), _structures(settings), synthetic)


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
    samples = [each for record in records for each in (expand(record) if record.index is None else [record])]
    return _read_files(samples, folder, settings)


def _read_files(samples: Sequence[Sample], folder: Path, settings: ReadingSettings) -> list[ReadSlice]:
    def load(sample: Sample) -> ReadSlice:
        pixels, mask = read_pair(sample)
        label = None if mask is None else prepare_label(mask, settings)
        unit, name = prepare(pixels, settings), name_of(sample, folder)
        return ReadSlice(unit, label, name, sample.unit, sample.patient, pixels.is_hu)

    return for_each(samples, load, "reading")


def _drop_empty(slices: list[ReadSlice], folder: Path) -> list[ReadSlice]:
    """Leaves out slices with an empty label, if all have one."""
    if any(each.label is None for each in slices):
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
    """Returns patient ids: the first scan of each person, whose number is known in this folder only."""
    scans: dict[str, str] = {}
    for each in slices:
        scans[each.patient] = min(scans.get(each.patient, each.scan), each.scan)
    return [scans[each.patient] for each in slices]


def structure_names(settings: ReadingSettings) -> Sequence[str]:
    """Returns the model's structures; none where its condition is an image."""
    labels = label_set_of(settings.info)
    return () if labels is None else labels.classes


def read_structures(
    records: Sequence[Sample], folder: Path, settings: ReadingSettings, store: Path
) -> list[ReadSlice]:
    """Reads the slices of volumes or pictures, with the classes of their label maps where they have any.

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
        for each in _read_cached(record, image, label, label_set, folder)
    ]


def _read_cached(
    record: Sample,
    image: CachedVolume,
    label: CachedVolume | None,
    label_set: LabelSet | None,
    folder: Path,
) -> Iterator[ReadSlice]:
    table = None if label is None else cached_pair(record, image, label, label_set).table
    reader = SliceReader()
    for index in range(image.depth):
        name = name_of(record, folder) + (f"#{index:03d}" if is_volume(record.image) else "")
        classes: np.ndarray | None = (
            None if label is None or table is None else table[reader.label(label, index)]
        )
        yield ReadSlice(reader.image(image, index), classes, name, record.unit, record.patient, image.is_hu)


def find_records(folder: Path, labels_folder: Path | None, patient_pattern: str | None) -> list[Sample]:
    """Makes one record per file: synthetic images, or real ones whose labels are in another folder.

    Args:
        folder: searched to any depth; where it has ``images/``, only there, with labels from ``labels/`` or
            ``masks/`` next to it; nodules in ``samples/`` have their labels in ``alpha/``.
        labels_folder: labels of equal names; those of synthetic images may lack ``_variantNN``.
        patient_pattern: see `common.data.patients.patient_of`.
    Raises:
        UserError: no images, or one without label.
    """
    labels = labels_folder
    images_folder = folder
    for name, label_folders in LABELS_OF.items():
        siblings = next((folder / label for label in label_folders if (folder / label).is_dir()), None)
        if (folder / name).is_dir() and (name == IMAGE_FOLDER or siblings is not None):
            images_folder, labels = folder / name, labels or siblings
            break
    images = image_files(images_folder)
    if not images:
        raise UserError(
            f"{folder}: no images found; put PNG, JPEG, NumPy, NIfTI, MHD or DICOM files or tar shards there"
        )
    records = [Sample(file, None, patient_of(file, patient_pattern)) for file in images]
    records = records if labels is None else add_labels(records, labels)
    known = [file for file in visible_files(images_folder) if file.stem in SHEETS]
    known += [path for record in records for path in (record.image, record.mask) if path is not None]
    warn_of_left_out(images_folder, known)
    return records


def find_real_records(
    folder: Path, kind: str, patient_pattern: str | None, info: Mapping[str, Any]
) -> list[Sample]:
    """Finds real images as the bundle's own training does, else in any folder of images.

    Args:
        kind: ``images``, ``pairs`` or ``structures``.
        info: the model's facts, see `common.inference.checkpoint.model_info`.
    """
    if info.get("condition") == "image":
        images_folder = folder / info.get("image_dir", IMAGE_FOLDER)
        return find_records(images_folder if images_folder.is_dir() else folder, None, patient_pattern)
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
    """Lists all images below ``folder`` (`common.data.layouts.images_below`) except labels and sheets."""
    return [image for image in images_below(folder) if may_hold_images(image, folder)]


def add_labels(records: list[Sample], folder: Path) -> list[Sample]:
    """Adds to each record the label of equal name in ``folder``, or in its ``labels/`` or ``masks/``.

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
            sample = replace(sample, mask_threshold=ALPHA_THRESHOLD)
        result.append(replace(sample, image=record.image, patient=record.patient))
    return result


def name_of(sample: Sample, folder: Path) -> str:
    """Returns the file's path in its folder, with ``#012`` for slice 12 of a volume."""
    name = sample.image.relative_to(folder) if sample.image.is_relative_to(folder) else sample.image
    return name.as_posix() if sample.index is None else f"{name.as_posix()}#{sample.index:03d}"


def _find_classes(folder: Path, patient_pattern: str | None, info: Mapping[str, Any]) -> list[Sample]:
    """Finds images of the classes that the model learned; all images where the folder has none of these."""
    images = find_images(folder, info.get("layout", AUTO), patient_pattern)
    own = set(info.get("classes", ())) & set(images.classes)
    return [sample for sample in images.samples if not own or sample.category in own]


def _has_layout(folder: Path) -> bool:
    try:
        detect_layout(folder)
    except UserError:
        return False
    return True
