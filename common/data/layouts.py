"""From a folder to its list of samples: one function for each way data sets lie on disk.

All layouts look for images with `images_below` and `images_in`. They give one record a file; `find_samples`
spreads volumes into axial slices, `find_volumes` does not.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from common.data.dicom_io import in_series
from common.data.patients import SLICE_PATTERN, keep_scans_together, near_duplicate_groups, patient_of
from common.data.samples import (
    PICTURE_SUFFIXES,
    READ,
    SEGMENTATION_SUFFIX,
    Sample,
    has_suffix,
    is_dicom_file,
    is_image,
    is_volume,
    stem,
)
from common.data.volume_io import source_parts, volume_depth
from common.errors import UserError, read_errors
from common.files import is_hidden, visible_files

logger = logging.getLogger(__name__)
RECORD_SUFFIX = ".json"
"""Splits, provenance and other records are read, not left out."""
SHOWN = 3


def images_below(folder: Path) -> list[Path]:
    """Lists all images below a folder, sorted: pictures, volume files, folders with one DICOM series each.

    Links to folders are followed. DICOM files of several series in one folder are single images, without
    scouts. A series that is spread over the subfolders of one folder is that folder. Pictures beside the
    slices of a series are previews of it, and no images.

    Raises:
        UserError: a link that leads back or nowhere, or a folder or DICOM header that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for file in ("case1/ct.nii.gz", "case2/CT.NRRD", "case2/notes.txt", "@eaDir/ct.png"):
        ...         (Path(name) / file).parent.mkdir(exist_ok=True)
        ...         (Path(name) / file).touch()
        ...     [image.relative_to(name).as_posix() for image in images_below(Path(name))]
        ['case1/ct.nii.gz', 'case2/CT.NRRD']
    """
    images: list[Path] = []
    slices: dict[Path, list[Path]] = defaultdict(list)
    for file in visible_files(folder):
        if is_dicom_file(file):
            slices[file.parent].append(file)
        elif is_image(file):
            images.append(file)
    series = _series_of({parent: in_series(files) for parent, files in slices.items()})
    previews = {file for file in images if file.parent in series and has_suffix(file, PICTURE_SUFFIXES)}
    return sorted({*images, *series} - previews)


def _series_of(held: Mapping[Path, dict[str, list[Path]]]) -> set[Path]:
    """Returns the folders that hold one series each, and the files of folders that hold several."""
    series = {f for parts in held.values() if len(parts) > 1 for files in parts.values() for f in files}
    folders_of: dict[str, list[Path]] = defaultdict(list)
    for folder, parts in held.items():
        if len(parts) == 1:
            folders_of[next(iter(parts))].append(folder)
    for uid, folders in folders_of.items():
        whole = Path(os.path.commonpath(folders))
        alone = uid and all(folder in folders for folder in held if folder.is_relative_to(whole))
        for top in [whole] if alone else folders:
            files = [file for folder in folders if folder.is_relative_to(top) for file in held[folder][uid]]
            series.add(top if len(files) > 1 else files[0])
    return series


def images_in(folder: Path) -> list[Path]:
    """Lists the images of a folder, sorted: its files, and its subfolders that hold one DICOM series each.

    Raises:
        UserError: the folder is missing, or `images_below`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; a data set has images/ and masks/ with equal file names")
    images: dict[Path, None] = {}
    for file in visible_files(folder):
        top = folder / file.relative_to(folder).parts[0]
        if top not in images and is_image(file):
            images[top] = None
    return sorted(images)


def warn_of_left_out(folder: Path, used: Iterable[Path | None]) -> None:
    """Counts in one line the files below a folder that are no part of what is used.

    Args:
        used: images and masks.
    """
    parts = {part for path in dict.fromkeys(used) if path is not None for part in _parts(path)}
    rest = [file for file in visible_files(folder) if file not in parts and file.suffix != RECORD_SUFFIX]
    images = [file for file in rest if is_image(file)]
    others = [file for file in rest if not is_image(file)]
    hidden = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    hidden = [file for file in hidden if any(map(is_hidden, file.relative_to(folder).parts))]
    counts = [
        _counted(folder, images, "image", "images"),
        _counted(folder, others, "other file", "other files"),
        _counted(folder, sorted(hidden), "hidden file", "hidden files"),
    ]
    if any(counts):
        logger.warning("%s: left out: %s", folder, ", ".join(filter(None, counts)))


def no_images(folder: Path, expected: str) -> UserError:
    """Returns the error for a folder without images: what is expected there and which files it holds."""
    kinds = sorted({file.suffix for file in visible_files(folder) if file.suffix and not is_image(file)})
    there = f"; {', '.join(kinds[:SHOWN])} files are not read: convert them to NIfTI or PNG" if kinds else ""
    return UserError(f"{folder}: {expected} ({READ}){there}")


def _parts(path: Path) -> list[Path]:
    with read_errors(path):
        return source_parts(path)


def _counted(folder: Path, files: list[Path], one: str, several: str) -> str:
    shown = ", ".join(file.relative_to(folder).as_posix() for file in files[:SHOWN])
    more = ", ..." if len(files) > SHOWN else ""
    return f"{len(files)} {one if len(files) == 1 else several} ({shown}{more})" if files else ""


# "X_label", "X_gt", "X_seg", or "label" alone in a folder with one image.
_LABEL = re.compile(r"(?:(?P<base>.+)[_-])?(?:labels?|gt|seg|segmentation|mask)", re.IGNORECASE)
IMAGE_ENDINGS = ("", "_image", "_img", "_ct")
EXPECTED = "NAME.nii.gz and NAME_label.nii.gz (or _gt, _seg; NAME_image and NAME_label)"


class _Pair(NamedTuple):
    """Two files of one name; the name is empty where the label's file is called ``label`` only."""

    image: Path
    label: Path
    name: str


def without_ending(name: str) -> str:
    """The name of a label file without its ending ``_label``, ``_seg`` or ``_gt``.

    Example:
        >>> without_ending("case1_seg"), without_ending("label")
        ('case1', 'label')
    """
    match = _LABEL.fullmatch(name)
    return match["base"] if match and match["base"] else name


def has_labels_beside(folder: Path) -> bool:
    """Whether any volume below ``folder`` is named like a label."""
    return any(_LABEL.fullmatch(_name(file)) for file in images_below(folder) if is_volume(file))


def labels_beside(folder: Path, patient_pattern: str | None = None) -> list[Sample]:
    """One record for each label below ``folder``; images without label are left out.

    Where names come again in several folders (``case1/ct.nii.gz``, ``case2/ct.nii.gz``) the folder's name is
    the patient and goes before the file's.

    Args:
        folder: searched to any depth; an image is a volume file or the folder of a DICOM series.
        patient_pattern: see `common.data.patients.identify_patient`; None for the field's ways of naming.
    Raises:
        UserError: no labels at all, or a label without its image.
    """
    pairs = sorted(_pairs(folder))
    if not pairs:
        raise UserError(f"{folder}: no image has a label beside it; expected {EXPECTED}")
    times = Counter(stem(pair.image) for pair in pairs)
    return [_record(pair, times[stem(pair.image)] > 1, patient_pattern) for pair in pairs]


def _record(pair: _Pair, repeated: bool, pattern: str | None) -> Sample:
    case = pair.image.parent.name
    name = case if repeated or not pair.name else pair.name
    patient = patient_of(pair.image, pattern, name)
    return Sample(pair.image, pair.label, patient, group=case if repeated else "")


def _pairs(folder: Path) -> Iterator[_Pair]:
    folders: dict[Path, dict[str, Path]] = defaultdict(dict)
    for image in filter(is_volume, images_below(folder)):
        for parent in (
            (image.parent, image) if image.is_dir() else (image.parent,)
        ):  # a label may lie in a series
            known = folders[parent].setdefault(_name(image), image)
            if known != image:
                raise UserError(f"{image}: {known.name} beside it has the same name; keep one of the two")
    for files in folders.values():
        labels = {
            name: match
            for name, file in files.items()
            if not file.is_dir() and (match := _LABEL.fullmatch(name))
        }
        images = {name: file for name, file in files.items() if name not in labels}
        for name, match in labels.items():
            base = match["base"] or ""
            yield _Pair(_image_of(files[name], base, images), files[name], base)


def _name(file: Path) -> str:
    """The file's stem; of 3D Slicer's ``CASE.seg.nrrd`` one that says that it is a label."""
    named = _LABEL.fullmatch(stem(file)) or not has_suffix(file, SEGMENTATION_SUFFIX)
    return stem(file) if named else f"{stem(file)}_seg"


def _image_of(label: Path, base: str, images: dict[str, Path]) -> Path:
    """The image that ``label`` belongs to among those beside it."""
    named = [images[base + ending] for ending in IMAGE_ENDINGS if base + ending in images]
    matching = named[:1] if base else list(images.values())
    if len(matching) != 1:
        raise UserError(f"{label}: label without image, {len(matching)} fit beside it; expected {EXPECTED}")
    return matching[0]


MASK_FOLDERS = ("masks", "labels")


def paired_files(
    folder: Path, masks_folder: Path | None = None, images_folder: str = "images"
) -> list[tuple[Path, Path]]:
    """(image, mask) paths with equal stems, sorted by stem.

    Args:
        folder: holds the images' folder.
        masks_folder: where the masks are; None for the first of `MASK_FOLDERS` that exists.
        images_folder: the images' folder in ``folder``.
    Raises:
        UserError: a folder is missing, no pairs, or a file without its partner.
    """
    if masks_folder is None:
        candidates = (folder / name for name in MASK_FOLDERS)
        masks_folder = next((candidate for candidate in candidates if candidate.is_dir()), folder / "masks")
    images, masks = files_by_stem(folder / images_folder), files_by_stem(masks_folder)
    if not images and not masks:
        raise UserError(
            f"{folder}: no images in {images_folder}/ and no masks in {masks_folder.name}/; "
            "put equal names into both"
        )
    _check_partners(images, masks, masks_folder, "image", "mask")
    _check_partners(masks, images, folder / images_folder, "mask", "image")
    return [(images[name], masks[name]) for name in sorted(images)]


def files_by_stem(folder: Path) -> dict[str, Path]:
    """`common.data.layouts.images_in` by their names without suffix.

    Raises:
        UserError: the folder is missing, or two files differ in their suffix alone.
    """
    files: dict[str, Path] = {}
    for file in images_in(folder):
        if stem(file) in files:
            raise UserError(
                f"{file}: {files[stem(file)].name} beside it has the same name; keep one of the two"
            )
        files[stem(file)] = file
    return files


def _check_partners(
    files: dict[str, Path], partners: dict[str, Path], partner_folder: Path, what: str, partner: str
) -> None:
    unpaired = sorted(files.keys() - partners.keys())
    if unpaired:
        more = f" (and {len(unpaired) - 1} more)" if len(unpaired) > 1 else ""
        raise UserError(
            f"{files[unpaired[0]]}: {what} without {partner}{more}; "
            f"add {partner_folder / unpaired[0]}.* or remove the {what}"
        )


PHANTOM_MARKER = "phantom.json"
PROVENANCE = "provenance.json"
# COVID-SemiSeg's pseudo masks are a network's soft output, 0..255.
SOFT_MASK_THRESHOLD = 128
DOCTOR_ORIENTATION = "transpose"
# Radiopaedia's case number names the person: case 10 and case 29 come as two scans each.
_CASE = re.compile(r"radiopaedia_org_(?P<case>.+?-\d+)_")


def find_samples(
    dataset_dir: str | os.PathLike[str], layout: str = "auto", patient_pattern: str | None = None
) -> list[Sample]:
    """All slices of a data set, in a fixed order. Volumes become one sample for each axial slice.

    Args:
        dataset_dir: the data set's folder.
        layout: a key of `LAYOUTS`, or ``auto``.
        patient_pattern: a regular expression on the stem whose group ``patient`` (or group 1) names the
            patient, see `common.data.patients.identify_patient`; None for the field's ways of naming.
    Raises:
        UserError: missing folder, no fitting layout, no pairs, an image or mask without its partner.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("images/case1_007.png", "masks/case1_007.png"):
        ...         (Path(folder) / name).parent.mkdir()
        ...         (Path(folder) / name).touch()
        ...     [(sample.name, sample.patient) for sample in find_samples(folder)]
        [('case1_007', 'case1')]
    """
    folder = _existing(dataset_dir)
    name = detect_layout(folder) if layout == "auto" else layout
    if name not in LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of auto, {', '.join(LAYOUTS)}")
    samples = [sample for record in LAYOUTS[name](folder, patient_pattern) for sample in expand(record)]
    if not samples:
        raise UserError(f"{folder}: no image and mask pairs found; put equal names into images/ and masks/")
    _warn(folder, name, samples)
    return samples


def find_volumes(
    dataset_dir: str | os.PathLike[str],
    layout: str = "auto",
    patient_pattern: str | None = None,
) -> list[Sample]:
    """All files of a set with label maps, in a fixed order: one record a volume or picture, ``index`` None.

    Args:
        dataset_dir: ``images/`` with labels of equal names in ``labels/heart/``, ``labels/`` or ``masks/``
            (the first of these that exists), or volumes with their labels beside them.
        layout: ``image_mask_folders``, ``labels_beside`` or ``auto``.
        patient_pattern: see `common.data.patients.identify_patient`; None for the field's ways of naming.
    Raises:
        UserError: missing folder, no fitting layout, no pairs, an image or label without its partner.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("case1.nii.gz", "case1_seg.nii.gz"):
        ...         (Path(folder) / name).touch()
        ...     [(record.image.name, record.mask.name, record.patient) for record in find_volumes(folder)]
        [('case1.nii.gz', 'case1_seg.nii.gz', 'case1')]
    """
    folder = _existing(dataset_dir)
    if layout not in ("auto", *VOLUME_LAYOUTS):
        raise UserError(f"layout {layout!r} is unknown; choose one of auto, {', '.join(VOLUME_LAYOUTS)}")
    if layout == "image_mask_folders" or (layout == "auto" and (folder / "images").is_dir()):
        records = _label_folders(folder, patient_pattern)
    elif layout == "auto" and not has_labels_beside(folder):
        raise no_images(folder, f"no images with labels found; expected images/ and labels/, or {EXPECTED}")
    else:
        records = labels_beside(folder, patient_pattern)
    _warn(folder, layout, records)
    return records


def _warn(folder: Path, layout: str, records: list[Sample]) -> None:
    """Says what is left out, but of phantoms, which come with labels for other models."""
    if layout != "phantom" and not (folder / PHANTOM_MARKER).is_file():
        warn_of_left_out(folder, [path for record in records for path in (record.image, record.mask)])


def _label_folders(folder: Path, pattern: str | None) -> list[Sample]:
    candidates = [folder / name for name in ("labels/heart", "labels", "masks")]
    labels_folder = next((path for path in candidates if path.is_dir()), candidates[1])
    group = "phantom" if (folder / PHANTOM_MARKER).is_file() else ""
    records = [
        Sample(image, label, patient_of(image, pattern), group=group)
        for image, label in paired_files(folder, labels_folder)
    ]
    return keep_scans_together(records, folder, pattern)


def _existing(dataset_dir: str | os.PathLike[str]) -> Path:
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give --dataset_dir a folder with images/ and masks/")
    return folder


def detect_layout(folder: Path) -> str:
    """The key of `LAYOUTS` that fits the folder.

    Raises:
        UserError: none fits.
    """
    if (folder / PHANTOM_MARKER).is_file():
        return "phantom"
    if _covid_parts(folder):
        return "covid_lesions"
    if (folder / "images").is_dir() and any((folder / name).is_dir() for name in MASK_FOLDERS):
        return "image_mask_folders"
    if has_labels_beside(folder):
        return "labels_beside"
    raise no_images(
        folder,
        "no known layout; expected images/ and masks/ with equal file names, X.nii.gz beside X_label.nii.gz, "
        "or doctor/ and pseudo/",
    )


def image_mask_folders(folder: Path, patient_pattern: str | None = None) -> list[Sample]:
    """``images/`` and ``masks/`` with equal stems: slices, volumes, or DICOM series folders."""
    pattern = pattern_of(folder, patient_pattern)
    records = [Sample(image, mask, patient_of(image, pattern)) for image, mask in paired_files(folder)]
    return keep_scans_together(records, folder, pattern)


def pattern_of(folder: Path, patient_pattern: str | None) -> str | None:
    """The user's pattern; else `SLICE_PATTERN` for a folder that `common.data.merge_datasets` made."""
    prepared = patient_pattern is None and (folder / PROVENANCE).is_file()
    return SLICE_PATTERN if prepared else patient_pattern


def phantom(folder: Path, patient_pattern: str | None = None) -> list[Sample]:
    """Made phantoms: NIfTI volumes; labels 1 ground glass and 2 consolidation both are lesion."""
    pairs = paired_files(folder)
    return [Sample(image, mask, stem(image), group="phantom", mask_values=(1, 2)) for image, mask in pairs]


def covid_lesions(folder: Path, patient_pattern: str | None = None) -> list[Sample]:
    """COVID-SemiSeg's ``doctor/`` and ``pseudo/`` slices: the parent folder, or one of the two."""
    parts = _covid_parts(folder)
    return [sample for name in sorted(parts) for sample in COVID_PARTS[name](parts[name])]


def doctor_slices(folder: Path) -> list[Sample]:
    """Slices without a patient id: near-duplicates share one. All lie transposed, spine at the right."""
    pairs = paired_files(folder)
    groups = near_duplicate_groups([Sample(image, None, "") for image, _ in pairs])
    return [
        Sample(
            image,
            mask,
            f"doctor_{group:03d}",
            orientation=DOCTOR_ORIENTATION,
            group="doctor",
            mask_values=(255,),
        )
        for (image, mask), group in zip(pairs, groups, strict=True)
    ]


def pseudo_slices(folder: Path) -> list[Sample]:
    """Slices with soft masks; the file name before its last ``_`` is the patient."""
    return [_pseudo_slice(image, mask) for image, mask in paired_files(folder)]


def _pseudo_slice(image: Path, mask: Path) -> Sample:
    """Coronacases lie rotated (spine at the left), radiopaedia transposed (spine at the right)."""
    patient = stem(image).rsplit("_", 1)[0]
    case = _CASE.search(patient)
    return Sample(
        image,
        mask,
        patient,
        orientation="rot90" if "coronacases" in patient else "transpose",
        group="pseudo",
        mask_threshold=SOFT_MASK_THRESHOLD,
        person=case["case"] if case else "",
        site="coronacases" if "coronacases" in patient else "radiopaedia",
    )


def expand(sample: Sample) -> list[Sample]:
    """One sample for each axial slice of a volume; a 2-D file stays one sample."""
    if not is_volume(sample.image):
        return [sample]
    return [replace(sample, index=index) for index in range(volume_depth(sample.image))]


def _covid_parts(folder: Path) -> dict[str, Path]:
    """The parts of COVID-SemiSeg found in (or named by) the folder."""
    inside = {name: folder / name for name in COVID_PARTS if (folder / name / "images").is_dir()}
    if inside or not (folder / "images").is_dir():
        return inside
    name = folder.resolve().name
    if name in COVID_PARTS:
        return {name: folder}
    first = next((stem(file) for file in images_in(folder / "images")), "")
    return {"pseudo": folder} if first.startswith(("Data-1_coronacases", "Data-1_radiopaedia")) else {}


Layout = Callable[[Path, str | None], list[Sample]]
COVID_PARTS: dict[str, Callable[[Path], list[Sample]]] = {"doctor": doctor_slices, "pseudo": pseudo_slices}
LAYOUTS: dict[str, Layout] = {
    "phantom": phantom,
    "covid_lesions": covid_lesions,
    "image_mask_folders": image_mask_folders,
    "labels_beside": labels_beside,
}
VOLUME_LAYOUTS = ("image_mask_folders", "labels_beside")


def mask_file(mask: Path) -> Sample:
    """The record of a mask that has no image yet, read as its folder's layout says.

    COVID-SemiSeg's folders are known by the names that `covid_lesions` goes by; other masks are upright, and
    any non-zero value is lesion. ``image`` is the mask itself.
    """
    part = next(iter(_covid_parts(mask.parent.parent)), "")
    if part == "doctor":
        return Sample(mask, mask, stem(mask), orientation=DOCTOR_ORIENTATION, group=part)
    return _pseudo_slice(mask, mask) if part == "pseudo" else Sample(mask, mask, stem(mask))
