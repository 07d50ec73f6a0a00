"""From a folder to its list of images without masks, each with a class: for unconditional nets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.duplicates import connected, near_duplicate_groups
from common.data.folders import files_by_stem, paired_files
from common.data.layouts import PHANTOM_MARKER, detect_layout, expand, find_samples
from common.data.patients import FRAME_PATTERN, SOURCE_PATTERN, patient_of
from common.data.pictures import PICTURE_SUFFIXES
from common.data.samples import Sample, stem, with_hu_offset
from common.data.severity import SEVERITIES, lung_slices
from common.data.volume_files import VOLUME_SUFFIXES, is_volume
from common.data.volumes import open_volume
from common.errors import UserError

LUNG_LABELS = Path("labels") / "lung"
ALL, AUTO, PREFERRED = "all", "auto", "covid"


class ImageSet(NamedTuple):
    """The images of a data set, in a fixed order, and the names of their classes in theirs."""

    samples: list[Sample]
    classes: list[str]

    def chosen(self, classes: str | Sequence[str], folder: str | os.PathLike[str]) -> ImageSet:
        """The images of some classes.

        Args:
            classes: names, in the order in which they are to be numbered, as a list or with commas between;
                ``all``; or ``auto`` for ``covid`` alone where there is such a class, else all.
            folder: of the set, for the message.
        Raises:
            UserError: no such class.
        """
        names = _names(classes, self.classes)
        unknown = [name for name in names if name not in self.classes]
        if unknown or not names:
            raise UserError(
                f"{folder}: no class {', '.join(unknown) or 'chosen'}; there is {', '.join(self.classes)}"
            )
        return ImageSet([sample for sample in self.samples if sample.category in names], names)


def find_images(
    dataset_dir: str | os.PathLike[str],
    layout: str = AUTO,
    patient_pattern: str | None = None,
    hu_offset: float | None = None,
) -> ImageSet:
    """All images of a data set. Volumes become one sample for each axial slice.

    Args:
        dataset_dir: the data set's folder.
        layout: a key of `IMAGE_LAYOUTS`, or ``auto``.
        patient_pattern: see `common.data.patients.patient_of`; None for `SOURCE_PATTERN` for pictures and
            `FRAME_PATTERN` for volumes.
        hu_offset: what the samples' values need to be HU, see `common.data.intensity.offset_to_hu`.
    Raises:
        UserError: missing folder, no fitting layout, no images.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give --dataset_dir a folder with images")
    name = _layout_of(folder) if layout == AUTO else layout
    if name not in IMAGE_LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of {AUTO}, {', '.join(IMAGE_LAYOUTS)}")
    found = IMAGE_LAYOUTS[name](folder, patient_pattern)
    if not found.samples:
        raise UserError(f"{folder}: no images found; put PNG, JPEG, NIfTI, MHD or DICOM files there")
    return found._replace(samples=with_hu_offset(found.samples, hu_offset))


def class_folders(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """A sub-folder of images for each class, such as COVID-CT's ``covid`` and ``noncovid``."""
    places = [place for place in sorted(folder.iterdir()) if _holds_images(place)]
    samples = [
        replace(sample, group=place.name, category=place.name, site=place.name)
        for place in places
        for sample in _files(place, patient_pattern)
    ]
    return ImageSet(_joined(samples), [place.name for place in places])


def one_folder(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """Images of one class, which has the folder's name."""
    name = folder.resolve().name
    samples = [replace(sample, category=name) for sample in _files(folder, patient_pattern)]
    return ImageSet(_joined(samples), [name])


def phantom_slices(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """The phantoms' slices with lung; classes are severities, see `common.data.severity`."""
    samples: list[Sample] = []
    lungs = files_by_stem(folder / LUNG_LABELS)
    for image, mask in paired_files(folder, folder / "masks"):
        if stem(image) not in lungs:
            raise UserError(f"{image}: no lung label in {folder / LUNG_LABELS}; make the set anew")
        shown = lung_slices(open_volume(lungs[stem(image)]).array, open_volume(mask).array)
        samples += [
            Sample(image, None, stem(image), index, group="phantom", category=name)
            for index, name in shown.items()
        ]
    present = {sample.category for sample in samples}
    return ImageSet(samples, [name for name in SEVERITIES if name in present])


def without_masks(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """The images of a set of pairs; their groups are the classes."""
    given = {} if patient_pattern is None else {"patient_pattern": patient_pattern}
    samples = [
        replace(sample, mask=None, category=sample.group or folder.resolve().name)
        for sample in find_samples(folder, **given)
    ]
    return ImageSet(samples, sorted({sample.category for sample in samples}))


ImageLayout = Callable[[Path, str | None], ImageSet]
IMAGE_LAYOUTS: dict[str, ImageLayout] = {
    "phantom": phantom_slices,
    "pairs": without_masks,
    "classes": class_folders,
    "flat": one_folder,
}


def _layout_of(folder: Path) -> str:
    if (folder / PHANTOM_MARKER).is_file():
        return "phantom"
    try:
        detect_layout(folder)
        return "pairs"
    except UserError:
        within = [place.name for place in sorted(folder.iterdir()) if _holds_images(place)]
    if not _holds_images(folder):
        return "classes"
    if within:
        raise UserError(
            f"{folder}: holds images beside folders of images ({', '.join(within)}); "
            "move them into the folder of a class"
        )
    return "flat"


def _names(classes: str | Sequence[str], known: Sequence[str]) -> list[str]:
    if classes == ALL or (classes == AUTO and PREFERRED not in known):
        return list(known)
    if classes == AUTO:
        return [PREFERRED]
    listed = classes.split(",") if isinstance(classes, str) else classes
    return list(dict.fromkeys(str(name).strip() for name in listed))


def _holds_images(place: Path) -> bool:
    if not place.is_dir() or place.name.startswith("."):
        return False
    return any(_is_image(file) for file in place.iterdir())


def _is_image(file: Path) -> bool:
    known = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
    return file.name.lower().endswith(known) and not file.name.startswith(".")


def _files(folder: Path, pattern: str | None) -> list[Sample]:
    """The slices of a folder's files, each with its patient."""
    samples: list[Sample] = []
    for name, file in sorted(files_by_stem(folder).items()):
        default = FRAME_PATTERN if is_volume(file) else SOURCE_PATTERN
        samples += expand(Sample(file, None, patient_of(file, pattern or default, name)))
    return samples


def _joined(samples: list[Sample]) -> list[Sample]:
    """Patients whose pictures are nearly the same become one person, so that no split parts them."""
    pictures = [sample for sample in samples if sample.index is None]
    if not pictures:
        return samples
    alike = near_duplicate_groups([sample.image for sample in pictures])
    if len(pictures) > 1 and len(set(alike)) == 1:
        where = pictures[0].image.parent
        raise UserError(f"{where}: all {len(pictures)} images are the same or nearly so; bring others")
    patients = list(dict.fromkeys(sample.patient for sample in samples))
    number = {patient: index for index, patient in enumerate(patients)}
    first: dict[int, int] = {}
    links = [
        (number[sample.patient], first.setdefault(group, number[sample.patient]))
        for sample, group in zip(pictures, alike, strict=True)
    ]
    person = connected(np.array(links), len(patients))
    return [replace(sample, person=f"person_{person[number[sample.patient]]:04d}") for sample in samples]
