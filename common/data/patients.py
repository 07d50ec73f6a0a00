"""Whose scan or slice a file is: told by its DICOM header or its name, in the field's ways of naming."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.data.formats import is_dicom_file
from common.data.near_duplicates import SAME_SLICE_CORRELATION, scan_groups
from common.data.samples import Sample, stem
from common.data.volume_io import is_volume, source_parts, volume_geometry
from common.errors import UserError

# Names that `common.data.merge_datasets` writes: PATIENT_NUMBER, and PATIENT_NUMBER_variant02 made of it.
SLICE_PATTERN = r"^(?P<patient>.+)[_-]\d+(?:_variant\d+)?$"

# Identifiers of public sets (BIDS; LIDC-IDRI, TCGA and other TCIA collections) and DICOM's own, anywhere.
_IDENTIFIER = re.compile(
    r"(?:(?<=[_\-. ])|^)(?:sub-[A-Za-z0-9]+|LIDC-IDRI-\d{4}|TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}|Lung_Dx-[A-Z]\d{4}"
    r"|LungFCP-\d\d-\d{4}|LUNG1-\d{3}|R01-\d{3}|AMC-\d{3}|C3[LN]-\d{5}|(?<![A-Za-z][_\-. ])[ABEG]\d{4}"
    r"|\d+(?:\.\d+){7,})(?!\d)"
)
# Pictures taken out of publications, as COVID-CT names them: "PAPER-p12-81_0", "PIIS0140673620303603_4".
_PUBLICATION = re.compile(r"^(?:(.+?)-p\d+-.*|(PIIS\w{16})(?:[_%]\d+)*)$")
# "patient001_frame12" (ACDC), "case0_slice012", "hospitalB-case_7_left_3": up to the first such number.
_NUMBERED = re.compile(
    r"^(?:.*?[_\-. ])?(?:patient|pat|pt|subject|subj|case|person|volunteer)[_\-. #]?\d+", re.IGNORECASE
)
# Which slice, frame, series or copy it is, at the end of a name; a number before may stand close: "7z012".
_SLICE = re.compile(r"(?:[_\-. ]+|(?<=\d))(?:(?i:slices?|slc|sl|images?|img|im)|z)[_\-. #]*\d+$")
_FRAME = re.compile(r"(?:[_\-. ]+|(?<=\d))(?:(?i:frame|fr|phase|timepoint|time|tp)|t)[_\-. #]*\d+$")
_SERIES = re.compile(r"(?:[_\-. ]+|(?<=\d))(?i:session|ses|series|scan|visit)[_\-. #]*\d+$")
_COPY = re.compile(r"(?:_variant\d+|[_\-. ]*(?:\(\d+\)|\[\d+\]))$")
_KIND = re.compile(r"[_\-. ]+(?i:mask|seg|label|ct|image|img)$")
_NUMBER = re.compile(r"[_\-. %]+\d+$")
# What alone names no patient, though a number follows it.
_WORD = re.compile(
    r"(?:.*[_\-. ])?(?:slices?|slc|sl|images?|img|im|z|frame|fr|t|scan|study|series|ct|patient|case"
    r"|(?:non[_\-. ]?)?covid(?:[_\-. ]?19)?|ncp|cap|cp|pneumonia|normal|healthy|benign|malignant|control)",
    re.IGNORECASE,
)
_NOBODY = re.compile(r"(?i)(?:anonym\w*|unknown|none|n/?a|patient|[0x*^ ]*)")


class Whose(NamedTuple):
    """A file's patient.

    Attributes:
        patient: the name.
        told: whether the file says it: by a known identifier, or by a number of its slice beside the name.
            Else the patient is the whole name, and may be one slice of somebody.
    """

    patient: str
    told: bool


def patient_of(image: Path, pattern: str | None = None, name: str | None = None) -> str:
    """The patient of a file or of a DICOM series' folder, see `whose`.

    Example:
        >>> [patient_of(Path(name)) for name in ("case7_012.png", "sub-03_ct.nii.gz", "TCGA-17-Z045_4.png")]
        ['case7', 'sub-03', 'TCGA-17-Z045']
        >>> patient_of(Path("x12-5.png"), r"x(\\d+)")
        '12'
    """
    return whose(image, pattern, name).patient


def whose(image: Path, pattern: str | None = None, name: str | None = None) -> Whose:
    """The patient of a file or of a DICOM series' folder, and whether it is told at all.

    With a ``pattern`` it is the regular expression's group ``patient`` (or group 1, or the match), matched at
    the start of the file's stem; a stem that does not match is a patient of its own. Without one, a DICOM
    header's ``PatientID`` goes first (of a file without that, its series), then the identifiers of public
    sets, then what stands before the number of the slice, frame or copy. Volumes keep a number at their end,
    which is the patient's; NIfTI and MetaImage files of one slice count as slices.

    Args:
        image: the file or folder.
        pattern: None for the field's ways of naming.
        name: looked at instead of the file's stem.
    Raises:
        UserError: the pattern is no regular expression.
    """
    text = stem(image) if name is None else name
    if pattern is not None:
        return _matched(text, pattern)
    if name is None and (found := header_patient(image)):
        return Whose(found, True)
    single = not is_volume(image) or is_single_slice(image)
    known = _IDENTIFIER.search(text) or _PUBLICATION.match(text) or _NUMBERED.match(text)
    if known:
        parts = [part for part in known.groups() if part]
        vague = known.re is _NUMBERED or re.fullmatch(r"[\d.]+|[ABEG]\d{4}", known.group())
        alone = bool(vague) and known.end() == len(text)
        return Whose(parts[0] if parts else known.group(), not (single and alone))
    return _shortened(text) if single else Whose(_without(text, (_COPY, _FRAME, _SERIES)), True)


def is_single_slice(path: Path) -> bool:
    """Whether a volume file (not DICOM) holds one slice, by its header; False where it cannot be read."""
    if not is_volume(path) or is_dicom(path) or not path.is_file():
        return False
    try:
        extent = volume_geometry(path)[0]
    except Exception:  # whoever reads the voxels says what is wrong with it
        return False
    return min(extent) == 1


def names_patient(folder_name: str) -> bool:
    """Whether a folder is called as patients are.

    Example:
        >>> [names_patient(name) for name in ("case12", "P001", "sub-03", "covid")]
        [True, True, True, False]
    """
    known = _IDENTIFIER.search(folder_name) or _NUMBERED.match(folder_name)
    return known is not None or re.fullmatch(r"[A-Za-z]{0,3}[_-]?\d{3,}", folder_name) is not None


def is_dicom(path: Path) -> bool:
    """Whether an image is DICOM: a file of that format, or a folder, which stands for a series."""
    return path.is_dir() or is_dicom_file(path)


def _matched(text: str, pattern: str) -> Whose:
    try:
        match = re.match(pattern, text)
    except re.error as error:
        raise UserError(f"patient_pattern {pattern!r} is no regular expression ({error})") from error
    if match is None:
        return Whose(text, False)
    group: str | int = "patient" if "patient" in match.re.groupindex else 1 if match.re.groups else 0
    return Whose(text if match[group] is None else match[group], True)


def header_patient(image: Path) -> str:
    """``PatientID`` of a DICOM file or series; of a file without one ``SeriesInstanceUID``; else ""."""
    try:
        first = source_parts(image)[0] if image.is_dir() else image
    except (OSError, IndexError):
        return ""
    if not is_dicom_file(first):
        return ""
    header = _header(first)
    if not _NOBODY.fullmatch(header["PatientID"]):
        return header["PatientID"]
    return "" if image.is_dir() else header["SeriesInstanceUID"]


def _header(file: Path) -> dict[str, str]:
    """Whose a DICOM file is; empty values where it does not say so or cannot be read."""
    tags = ["PatientID", "SeriesInstanceUID"]
    try:
        import pydicom

        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
    except Exception:  # whoever reads the voxels says what is wrong with it
        return dict.fromkeys(tags, "")
    return {tag: str(header.get(tag, "") or "").strip() for tag in tags}


def _shortened(text: str) -> Whose:
    """Of a slice: what stands before the numbers of slice, frame, series and copy at the end of its name."""
    text = _without(text, (_KIND,))
    rest = _without(text, (_COPY, _SLICE, _FRAME))
    if rest == text or _COPY.search(text):
        rest = _cut(rest, _NUMBER)
    rest = _without(rest, (_COPY, _SLICE, _FRAME, _SERIES))
    if re.fullmatch(r"(?:[A-Za-z]+[_\-. ])?\d+[_\-. %]+\d+", rest):  # patient, series and slice as numbers
        rest = _cut(rest, _NUMBER)
    return Whose(rest, rest != text)


def _without(text: str, endings: tuple[re.Pattern[str], ...]) -> str:
    """The text without such endings, however many there are."""
    while shorter := next((cut for ending in endings if (cut := _cut(text, ending)) != text), ""):
        text = shorter
    return text


def _cut(text: str, ending: re.Pattern[str]) -> str:
    """The text before an ending, unless nothing that could name a patient is left."""
    rest = ending.sub("", text)
    nameless = not rest or _WORD.fullmatch(rest)
    needs_number = ending is _SERIES and not re.search(r"\d", rest)
    return text if nameless or needs_number else rest


logger = logging.getLogger(__name__)
ROWS_AT_ONCE = 1024
LEAST_SLICES = 8
"""With fewer nothing is said of a set's names."""
MANY = 0.5
"""Share of slices that would be patients of their own, from which on they are looked at."""
SPLITS_FILE = "splits.json"

S = TypeVar("S", bound=Sample)


def keep_scans_together(records: Sequence[S], folder: Path, pattern: str | None = None) -> list[S]:
    """The records with `Sample.person` set where most slices would be patients of their own.

    Slices whose names tell no patient (``0012.png``, ``IMG0012.png``) lie in the order of their scans, so
    those that `common.data.near_duplicates.scan_groups` finds alike are taken for one person's. One line
    warns of it and names three examples. A folder with a ``splits.json`` of its own is left alone.

    Args:
        records: one a file, of slices or volumes.
        folder: the data set's.
        pattern: what their patients were told by, see `common.data.patients.whose`.
    Raises:
        UserError: a slice is unreadable.
    """
    slices = [record for record in records if not is_volume(record.image) or is_single_slice(record.image)]
    times = Counter(record.patient for record in slices)
    alone = {
        record.image
        for record in slices
        if times[record.patient] == 1 and not record.person and not whose(record.image, pattern).told
    }
    few = len(slices) < LEAST_SLICES or len(alone) < MANY * len(slices)
    if few or (folder / SPLITS_FILE).is_file():
        return list(records)
    ordered = sorted((record for record in slices if record.image in alone), key=_natural)
    groups = scan_groups(ordered)
    first: dict[int, str] = {}
    persons = {r.image: first.setdefault(group, r.patient) for r, group in zip(ordered, groups, strict=True)}
    shown = [ordered[len(ordered) * place // 3] for place in range(3)]
    logger.warning(
        "%s: most slices would be patients of their own (%s); neighbours that look alike are kept "
        "together, %d slices as %d patients; say whose they are with --patient_pattern or splits.json",
        folder,
        ", ".join(f"{record.image.name} -> {record.patient}" for record in shown),
        len(ordered),
        len(first),
    )
    return [replace(r, person=persons[r.image]) if r.image in persons else r for r in records]


def _natural(record: Sample) -> list[tuple[int, str]]:
    """Sorts 9 before 10."""
    parts = re.findall(r"\d+|\D+", record.image.as_posix())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def join_persons(samples: Sequence[Sample], sets: Sequence[str], thumbnails: np.ndarray) -> list[Sample]:
    """The samples with `Sample.person` set where patients of different sets show the same slice.

    Args:
        samples: slices of all sets.
        sets: the set of each sample; slices of one set are never compared (their patient ids are known).
        thumbnails: (N, T * T), see `common.data.near_duplicates`.
    """
    patients = sorted({sample.patient for sample in samples})
    position = {patient: index for index, patient in enumerate(patients)}
    patient_of = np.array([position[sample.patient] for sample in samples])
    pairs = _alike(np.unique(sets, return_inverse=True)[1], thumbnails)  # (2, M)
    first, second = patient_of[pairs]
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(patients),) * 2)
    groups = connected_components(graph, directed=False)[1]
    # Each group is named after its first patient.
    names = {int(group): patients[index] for index, group in reversed(list(enumerate(groups)))}
    return [replace(sample, person=names[int(groups[position[sample.patient]])]) for sample in samples]


def _alike(sets: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Index pairs (2, M) of slices from different sets that show the same."""
    found = [np.empty((2, 0), dtype=np.int64)]
    for start in range(0, len(thumbnails), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        alike = (thumbnails[rows] @ thumbnails.T >= SAME_SLICE_CORRELATION) & (sets[rows, None] != sets)
        here, there = np.nonzero(alike)
        found.append(np.stack([here + start, there]))
    return np.concatenate(found, axis=1)
