"""From a folder to its list of samples: one function for each way data sets lie on disk.

Layouts give one record a file; `find_samples` spreads volumes into axial slices, `find_volumes` does not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.data.beside import EXPECTED, has_labels_beside, labels_beside
from common.data.duplicates import near_duplicate_groups
from common.data.folders import MASK_FOLDERS, image_files, paired_files
from common.data.patients import SLICE_PATTERN, patient_of
from common.data.persons import keep_scans_together
from common.data.samples import Sample, stem
from common.data.volume_files import is_volume
from common.data.volumes import volume_depth
from common.errors import UserError

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
            patient, see `common.data.patients.whose`; None for the field's ways of naming.
    Raises:
        UserError: missing folder, no fitting layout, no pairs, an image or mask without its partner.
    """
    folder = _existing(dataset_dir)
    name = detect_layout(folder) if layout == "auto" else layout
    if name not in LAYOUTS:
        raise UserError(f"layout {name!r} is unknown; choose one of auto, {', '.join(LAYOUTS)}")
    samples = [sample for record in LAYOUTS[name](folder, patient_pattern) for sample in expand(record)]
    if not samples:
        raise UserError(f"{folder}: no image and mask pairs found; put equal names into images/ and masks/")
    return samples


def find_volumes(
    dataset_dir: str | os.PathLike[str],
    layout: str = "auto",
    patient_pattern: str | None = None,
    labels: str | os.PathLike[str] = "heart",
) -> list[Sample]:
    """All files of a set with label maps, in a fixed order: one record a volume or picture, ``index`` None.

    Args:
        dataset_dir: ``images/`` with labels of equal names in ``labels/<labels>/``, ``labels/`` or ``masks/``
            (the first of these that exists), or volumes with their labels beside them.
        layout: ``image_mask_folders``, ``labels_beside`` or ``auto``.
        patient_pattern: see `common.data.patients.whose`; None for the field's ways of naming.
        labels: which of several kinds of labels; a path for a folder elsewhere.
    Raises:
        UserError: missing folder, no fitting layout, no pairs, an image or label without its partner.
    """
    folder = _existing(dataset_dir)
    if layout not in ("auto", *VOLUME_LAYOUTS):
        raise UserError(f"layout {layout!r} is unknown; choose one of auto, {', '.join(VOLUME_LAYOUTS)}")
    if layout == "image_mask_folders" or (layout == "auto" and (folder / "images").is_dir()):
        return _label_folders(folder, patient_pattern, labels)
    if layout == "auto" and not has_labels_beside(folder):
        raise UserError(f"{folder}: no images with labels found; expected images/ and labels/, or {EXPECTED}")
    return labels_beside(folder, patient_pattern)


def _label_folders(folder: Path, pattern: str | None, labels: str | os.PathLike[str]) -> list[Sample]:
    places = [folder / "labels" / labels, *(folder / name for name in ("labels", "masks"))]
    place = next((place for place in places if place.is_dir()), places[1])
    group = "phantom" if (folder / PHANTOM_MARKER).is_file() else ""
    records = [
        Sample(image, label, patient_of(image, pattern), group=group)
        for image, label in paired_files(folder, place)
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
    raise UserError(
        f"{folder}: no known layout; expected images/ and masks/ with equal file names "
        "(PNG or JPEG slices, NIfTI or MHD volumes, DICOM series folders), or doctor/ and pseudo/"
    )


def image_mask_folders(folder: Path, patient_pattern: str | None = None) -> list[Sample]:
    """``images/`` and ``masks/`` with equal stems: slices, volumes, or DICOM series folders."""
    pattern = pattern_of(folder, patient_pattern)
    records = [Sample(image, mask, patient_of(image, pattern)) for image, mask in paired_files(folder)]
    return keep_scans_together(records, folder, pattern)


def pattern_of(folder: Path, patient_pattern: str | None) -> str | None:
    """The user's pattern; else `SLICE_PATTERN` for a folder that `common.data.harmonise` made."""
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
    first = next((stem(file) for file in image_files(folder / "images")), "")
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
