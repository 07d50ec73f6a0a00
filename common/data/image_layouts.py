"""From a folder to its list of images without masks, each with a class: for unconditional nets."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.layouts import (
    PHANTOM_MARKER,
    detect_layout,
    expand,
    files_by_stem,
    find_samples,
    images_below,
    no_images,
    paired_files,
    pattern_of,
    warn_of_left_out,
)
from common.data.lung_segmentation import segment_lungs
from common.data.patients import (
    header_patient,
    identify_patient,
    is_dicom,
    joined_persons,
    keep_scans_together,
    names_patient,
    patient_of,
    same_slice_groups,
)
from common.data.samples import AnySample, Sample, is_volume, stem, with_values
from common.data.volume_io import Volume, open_volume
from common.errors import UserError

logger = logging.getLogger(__name__)
SEVERITIES = ("none", "mild", "moderate", "severe")
MILD, MODERATE = 0.05, 0.15
"""Largest share of a slice's lung that lesions cover in ``mild`` and ``moderate``.

Radiological scores have their first step at 5 % as well (Pan et al. 2020); 15 % parts the phantoms' other
slices about 2 to 1.
"""
LEAST_LUNG = 0.05
"""Slices with a smaller share of lung are left out: shoulders, and the abdomen below."""


def severity_of(share: float) -> str:
    """The class of a slice by the share of its lung, 0 to 1, that lesions cover.

    Example:
        >>> severity_of(0.0), severity_of(0.04), severity_of(0.3)
        ('none', 'mild', 'severe')
    """
    if share <= 0:
        return SEVERITIES[0]
    return SEVERITIES[1] if share < MILD else SEVERITIES[2] if share < MODERATE else SEVERITIES[3]


def lung_slices(lung: np.ndarray, lesion: np.ndarray) -> dict[int, str]:
    """The slices that show lung, each with its severity.

    Args:
        lung, lesion: label maps (H, W, D); lung is wherever the first is not 0, lesion wherever both are not.
    """
    areas = (lung > 0).sum((0, 1))  # (D,)
    ill = ((lesion > 0) & (lung > 0)).sum((0, 1))  # (D,)
    shown = np.flatnonzero(areas >= max(1.0, LEAST_LUNG * lung.shape[0] * lung.shape[1]))
    return {int(index): severity_of(ill[index] / areas[index]) for index in shown}


LUNG_LABELS = Path("labels") / "lung"
ALL, AUTO, PREFERRED = "all", "auto", "covid"
LEAST_PATIENTS = 3
"""Folders; fewer with numbers in their names may be classes, as ``grade1`` and ``grade2``."""


class ImageSet(NamedTuple):
    """The images of a data set, in a fixed order, and the names of their classes in theirs.

    ``plain``: one folder of images, whose name stands for a class that nobody named.
    """

    samples: list[Sample]
    classes: list[str]
    plain: bool = False

    def called(self, classes: str | Sequence[str]) -> ImageSet:
        """A plain folder's images under the one class that is asked for; any other set as it is."""
        names = [] if classes in (ALL, AUTO) else _names(classes, self.classes)
        if not self.plain or len(names) != 1:
            return self
        return ImageSet([replace(sample, category=names[0]) for sample in self.samples], names, plain=True)

    def chosen(
        self, classes: str | Sequence[str], folder: str | os.PathLike[str], or_all: bool = False
    ) -> ImageSet:
        """The images of some classes.

        Args:
            classes: names, in the order in which they are to be numbered, as a list or with commas between;
                ``all``; or ``auto`` for ``covid`` alone where there is such a class, else all.
            folder: of the set, for the message.
            or_all: whether a list of classes that are all missing means all images, with a warning: for
                models that draw no classes, whose own are the names of the folders they learned from.
        Raises:
            UserError: no such class.
        """
        if or_all and not isinstance(classes, str):
            present = [name for name in classes if name in self.classes]
            if not present:
                logger.warning(
                    "%s: no class %s, as in the model's training; all images are taken (class %s)",
                    folder,
                    ", ".join(classes),
                    ", ".join(self.classes),
                )
            classes = present or ALL
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
    source_range: Sequence[float] | None = None,
) -> ImageSet:
    """All images of a data set. Volumes become one sample for each axial slice.

    Args:
        dataset_dir: the data set's folder.
        layout: a key of `IMAGE_LAYOUTS`, or ``auto``: sub-folders are patients where each holds the DICOM
            series of one person, or where there are three at least with the names of patients (``case12``,
            ``P001``, ``LIDC-IDRI-0001``); else classes.
        patient_pattern: see `common.data.patients.identify_patient`; None for the field's ways of naming.
        hu_offset, source_range: what the values mean, see `common.data.samples.with_values`.
    Raises:
        UserError: missing folder, no fitting layout, no images.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number, name in enumerate(("covid/case1_007.png", "noncovid/case2_003.png")):
        ...         (Path(folder) / name).parent.mkdir()
        ...         values = np.random.default_rng(number).integers(0, 255, (40, 40), np.uint8)
        ...         Image.fromarray(values).save(Path(folder) / name)
        ...     images = find_images(folder)
        >>> images.classes, [sample.patient for sample in images.samples]
        (['covid', 'noncovid'], ['case1', 'case2'])
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give --dataset_dir a folder with images")
    name = _layout_of(folder) if layout == AUTO else layout
    if name not in IMAGE_LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of {AUTO}, {', '.join(IMAGE_LAYOUTS)}")
    images = IMAGE_LAYOUTS[name](folder, pattern_of(folder, patient_pattern))
    if not images.samples:
        raise no_images(folder, "no images found; put files there")
    if name not in OF_OTHERS:
        warn_of_left_out(folder, [sample.image for sample in images.samples])
    return images._replace(samples=with_values(images.samples, hu_offset, source_range))


def class_folders(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """A sub-folder for each class, such as COVID-CT's ``covid`` and ``noncovid``.

    It holds images, or folders of images, each of one patient, to any depth.
    """
    folders = _top_folders(folder, images_below(folder))
    records = [
        replace(record, group="-".join(filter(None, [subfolder.name, record.group])), category=subfolder.name)
        for subfolder in folders
        for record in _records(subfolder, patient_pattern)
    ]
    records = [replace(record, site=record.category) for record in _told_apart(records, patient_pattern)]
    return ImageSet(_joined(records, folder, patient_pattern), [subfolder.name for subfolder in folders])


def _told_apart(records: Sequence[Sample], pattern: str | None) -> list[Sample]:
    """The records of classes; a name that tells no patient (``0012.png``) is not the same person's in two."""
    classes: dict[str, set[str]] = {}
    for record in records:
        classes.setdefault(record.patient, set()).add(record.category)
    return [
        replace(record, patient=f"{record.category}-{record.patient}")
        if len(classes[record.patient]) > 1
        and record.group == record.category
        and not identify_patient(record.image, pattern).identified
        else record
        for record in records
    ]


def one_folder(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """Images of one class, which has the folder's name; a sub-folder, to any depth, is one patient's."""
    name = folder.resolve().name
    records = [replace(record, category=name) for record in _records(folder, patient_pattern)]
    return ImageSet(_joined(records, folder, patient_pattern), [name], plain=True)


def phantom_slices(folder: Path, patient_pattern: str | None = None) -> ImageSet:
    """The phantoms' slices with lung; classes are severities, see `common.data.image_layouts`."""
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
    samples = [
        replace(sample, mask=None, category=sample.group or folder.resolve().name)
        for sample in find_samples(folder, patient_pattern=patient_pattern)
    ]
    return ImageSet(samples, sorted({sample.category for sample in samples}))


OF_OTHERS = ("phantom", "pairs")
"""Layouts in which not every image is to be used, or whose own search says what is left out."""
ImageLayout = Callable[[Path, str | None], ImageSet]
IMAGE_LAYOUTS: dict[str, ImageLayout] = {
    "phantom": phantom_slices,
    "pairs": without_masks,
    "classes": class_folders,
    "patients": one_folder,
    "flat": one_folder,
}


def _layout_of(folder: Path) -> str:
    if (folder / PHANTOM_MARKER).is_file():
        return "phantom"
    try:
        detect_layout(folder)
        return "pairs"
    except UserError:
        images = images_below(folder)
    within = _top_folders(folder, images)
    if within and any(image.parent == folder and image not in within for image in images):
        raise UserError(
            f"{folder}: holds images beside folders of images ({', '.join(inner.name for inner in within)}); "
            "move them into the folder of a class"
        )
    if not within:
        return "flat"
    return "patients" if _are_patients(within, images) else "classes"


def _top_folders(folder: Path, images: Sequence[Path]) -> list[Path]:
    """The sub-folders that hold images, or are one: a DICOM series."""
    steps = ((image, image.relative_to(folder).parts) for image in images)
    return sorted(
        {folder / parts[0] for image, parts in steps if len(parts) > 1 or (parts and image.is_dir())}
    )


def _are_patients(folders: Sequence[Path], images: Sequence[Path]) -> bool:
    """Whether folders are one patient each rather than one class each."""
    if len(folders) >= LEAST_PATIENTS and all(names_patient(subfolder.name) for subfolder in folders):
        return True
    return all(_is_one_patients([i for i in images if i.is_relative_to(subfolder)]) for subfolder in folders)


def _is_one_patients(images: Sequence[Path]) -> bool:
    """Whether images are DICOM series alone, one of them or several of one ``PatientID``."""
    if not all(is_dicom(image) for image in images):
        return False
    named = {header_patient(image) for image in images}
    return len(images) == 1 or (len(named) == 1 and "" not in named)


def _names(classes: str | Sequence[str], known: Sequence[str]) -> list[str]:
    if classes == ALL or (classes == AUTO and PREFERRED not in known):
        return list(known)
    if classes == AUTO:
        return [PREFERRED]
    listed = classes.split(",") if isinstance(classes, str) else classes
    return list(dict.fromkeys(str(name).strip() for name in listed))


def _records(folder: Path, pattern: str | None) -> Iterator[Sample]:
    """A folder's images; a sub-folder is of one patient, named by the files (DICOM headers) or by the folder.

    Raises:
        UserError: two images of one folder differ in their suffix alone.
    """
    known: dict[tuple[Path, str], Path] = {}
    for image in images_below(folder):
        other = known.setdefault((image.parent, stem(image)), image)
        if other != image:
            raise UserError(f"{image}: {other.name} beside it has the same name; keep one of the two")
        inner = image.relative_to(folder).parts[:-1] if image != folder else ()
        patient = patient_of(image, pattern, None if is_volume(image) else stem(image))
        if inner and pattern is None:
            patient = (header_patient(image) if is_dicom(image) else "") or patient_of(folder / inner[0])
        yield Sample(image, None, patient, group="-".join(inner))


def _joined(records: Sequence[Sample], folder: Path, pattern: str | None) -> list[Sample]:
    """The records' slices. Patients with the same slice, at whatever size and window, become one person, so
    that no split parts them."""
    records = keep_scans_together(records, folder, pattern)
    pictures = [record for record in records if not is_volume(record.image)]
    alike = same_slice_groups(pictures)
    if len(pictures) > 1 and len(pictures) == len(records) and len(set(alike)) == 1:
        where = pictures[0].image.parent
        raise UserError(f"{where}: all {len(pictures)} images are the same or nearly so; bring others")
    first: dict[int, str] = {}
    links = [
        (r.patient, first.setdefault(group, r.patient)) for r, group in zip(pictures, alike, strict=True)
    ]
    links += [(record.patient, record.person) for record in records if record.person]
    persons = joined_persons({record.patient for record in records}, links)
    joined = (replace(record, person=persons[record.patient]) for record in records)
    return [sample for record in joined for sample in expand(record)]


ROUNDING_MM = 1e-3
LEAST_OF_LARGEST = 0.3
"""Lung area of a slice, as a share of the volume's largest one, from which it is taken."""


def spaced_slices(samples: Sequence[AnySample], slice_mm: float | None) -> list[AnySample]:
    """The samples without those slices of volumes that are too close to one another, or show little lung.

    Neighbours of 1 mm are nearly the same picture, and a volume of 300 slices would outweigh 40 patients of
    one slice. Pictures and volumes of one slice all stay. Of volumes that are no HU the lung cannot be told:
    their slices are spaced over the whole.

    Args:
        samples: slices of a volume one after the other.
        slice_mm: least distance of the slices taken; None takes all.
    Raises:
        UserError: not a distance above 0, or a volume in HU without a lung.
    """
    if slice_mm is None:
        return list(samples)
    if not slice_mm > 0:
        raise UserError(f"slice_mm {slice_mm}: give a distance above 0 mm, or null for all slices")
    kept: list[AnySample] = []
    for _, run in groupby(samples, key=lambda sample: (sample.image, sample.index is None)):
        slices = list(run)
        kept += slices if len(slices) == 1 else _spaced_in_volume(slices, float(slice_mm))
    if len(kept) < len(samples):
        logger.info(f"slice_mm {slice_mm:g}: {len(kept)} of {len(samples)} slices are taken")
    return kept


def _spaced_in_volume(slices: list[AnySample], slice_mm: float) -> list[AnySample]:
    volume = open_volume(slices[0].image)
    if not volume.has_spacing:
        raise UserError(
            f"{slices[0].image}: gives no distance between its slices, which slice_mm needs; "
            "put it into the header, or set slice_mm null"
        )
    calibration = volume.calibrate(slices[0].hu_offset, slices[0].source_range, slices[0].image)
    has_lung = np.ones(volume.depth, bool)
    if calibration.is_hu:
        has_lung = _shows_lung(volume, slices[0], calibration.offset)
    kept: list[AnySample] = []
    last_mm = -np.inf
    for sample in slices:
        height_mm = (sample.index or 0) * volume.spacing[2]
        if has_lung[sample.index or 0] and height_mm - last_mm >= slice_mm - ROUNDING_MM:
            kept.append(sample)
            last_mm = height_mm
    return kept


def _shows_lung(volume: Volume, sample: AnySample, offset: float) -> np.ndarray:
    """(D,) whether each slice shows enough lung."""
    hu = volume.array + offset
    rows, columns, thickness = volume.spacing
    lungs = segment_lungs(hu.transpose(2, 0, 1), (thickness, rows, columns), name=str(sample.image))
    areas = (lungs > 0).sum((1, 2))
    return np.asarray(areas >= LEAST_OF_LARGEST * areas.max())
