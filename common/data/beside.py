"""Data sets whose label files lie beside the images, at any depth: MM-WHS and ACDC as published."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.data.patients import patient_of
from common.data.samples import Sample, stem
from common.data.volume_files import META_SUFFIXES, NIFTI_SUFFIXES
from common.errors import UserError

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
    """The name of a label file without what says that it is one; a file called ``label`` only keeps that."""
    match = _LABEL.fullmatch(name)
    return match["base"] if match and match["base"] else name


def has_labels_beside(folder: Path) -> bool:
    """Whether any volume below ``folder`` is named like a label."""
    return any(_LABEL.fullmatch(stem(file)) for file in _volume_files(folder))


def labels_beside(folder: Path, patient_pattern: str | None = None) -> list[Sample]:
    """One record for each label below ``folder``; images without label are left out.

    Where names come again in several folders (``case1/ct.nii.gz``, ``case2/ct.nii.gz``) the folder's name is
    the patient and goes before the file's.

    Args:
        folder: searched to any depth; hidden files and folders are left out.
        patient_pattern: see `common.data.patients.whose`; None for the field's ways of naming.
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
    for file in _volume_files(folder):
        known = folders[file.parent].setdefault(stem(file), file)
        if known != file:
            raise UserError(f"{file}: {known.name} beside it has the same name; keep one of the two")
    for files in folders.values():
        labels = {name: match for name in files if (match := _LABEL.fullmatch(name))}
        images = {name: file for name, file in files.items() if name not in labels}
        for name, match in labels.items():
            base = match["base"] or ""
            yield _Pair(_image_of(files[name], base, images), files[name], base)


def _image_of(label: Path, base: str, images: dict[str, Path]) -> Path:
    """The image that ``label`` belongs to among those beside it."""
    named = [images[base + ending] for ending in IMAGE_ENDINGS if base + ending in images]
    found = named[:1] if base else list(images.values())
    if len(found) != 1:
        raise UserError(f"{label}: label without image, {len(found)} fit beside it; expected {EXPECTED}")
    return found[0]


def _volume_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
        if not hidden and path.name.lower().endswith((*NIFTI_SUFFIXES, *META_SUFFIXES)) and path.is_file():
            yield path
