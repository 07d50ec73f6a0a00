"""Whose scan or slice a file is: by its DICOM header, its name in the field's ways of naming, or its image.

Slices whose names tell no patient are grouped by what they show: near-identical slices are one patient's.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.data.dicom_io import file_identity
from common.data.image_io import read_picture
from common.data.intensity import WINDOWS, to_unit
from common.data.samples import Sample, is_dicom_file, is_volume, stem
from common.data.slice_geometry import resize_image
from common.data.volume_io import open_volume, source_parts, volume_geometry
from common.errors import UserError

logger = logging.getLogger(__name__)

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


class PatientName(NamedTuple):
    """A file's patient.

    Attributes:
        patient: the name.
        identified: whether the file gives it: by a known identifier, or by a number of its slice beside the
            name. Else the patient is the whole name, and may be one slice of somebody.
    """

    patient: str
    identified: bool


def patient_of(image: Path, pattern: str | None = None, name: str | None = None) -> str:
    """The patient of a file or of a DICOM series' folder, see `identify_patient`.

    Example:
        >>> [patient_of(Path(name)) for name in ("case7_012.png", "sub-03_ct.nii.gz", "TCGA-17-Z045_4.png")]
        ['case7', 'sub-03', 'TCGA-17-Z045']
        >>> patient_of(Path("x12-5.png"), r"x(\\d+)")
        '12'
    """
    return identify_patient(image, pattern, name).patient


def identify_patient(image: Path, pattern: str | None = None, name: str | None = None) -> PatientName:
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
    if name is None and (patient := header_patient(image)):
        return PatientName(patient, True)
    single = not is_volume(image) or is_single_slice(image)
    known = _IDENTIFIER.search(text) or _PUBLICATION.match(text) or _NUMBERED.match(text)
    if known:
        parts = [part for part in known.groups() if part]
        vague = known.re is _NUMBERED or re.fullmatch(r"[\d.]+|[ABEG]\d{4}", known.group())
        alone = bool(vague) and known.end() == len(text)
        return PatientName(parts[0] if parts else known.group(), not (single and alone))
    return _shortened(text) if single else PatientName(_without(text, (_COPY, _FRAME, _SERIES)), True)


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


def _matched(text: str, pattern: str) -> PatientName:
    try:
        match = re.match(pattern, text)
    except re.error as error:
        raise UserError(f"patient_pattern {pattern!r} is no regular expression ({error})") from error
    if match is None:
        return PatientName(text, False)
    group: str | int = "patient" if "patient" in match.re.groupindex else 1 if match.re.groups else 0
    return PatientName(text if match[group] is None else match[group], True)


def header_patient(image: Path) -> str:
    """``PatientID`` of a DICOM file or series; of a file without one ``SeriesInstanceUID``; else ""."""
    try:
        first = source_parts(image)[0] if image.is_dir() else image
    except (OSError, IndexError):
        return ""
    if not is_dicom_file(first):
        return ""
    patient, series = file_identity(first)
    return patient if not _NOBODY.fullmatch(patient) else "" if image.is_dir() else series


def _shortened(text: str) -> PatientName:
    """Of a slice: what stands before the numbers of slice, frame, series and copy at the end of its name."""
    text = _without(text, (_KIND,))
    rest = _without(text, (_COPY, _SLICE, _FRAME))
    if rest == text or _COPY.search(text):
        rest = _cut(rest, _NUMBER)
    rest = _without(rest, (_COPY, _SLICE, _FRAME, _SERIES))
    if re.fullmatch(r"(?:[A-Za-z]+[_\-. ])?\d+[_\-. %]+\d+", rest):  # patient, series and slice as numbers
        rest = _cut(rest, _NUMBER)
    return PatientName(rest, rest != text)


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


THUMBNAIL = 32


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduces an image to a vector of zero mean and unit norm, so that a dot product is a correlation.

    Args:
        image: (H, W) in any range.
    Returns:
        (T * T,) float32, T being `THUMBNAIL`.

    Example:
        >>> ramp = np.arange(64.0 * 64).reshape(64, 64)
        >>> round(float(thumbnail(ramp) @ thumbnail(5 - 2 * ramp)), 4)
        -1.0
    """
    small = resize_image(image, THUMBNAIL, THUMBNAIL).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def without_padding(image: np.ndarray) -> np.ndarray:
    """Cuts off rows and columns at the edges of (H, W) that hold nothing but the first pixel's value.

    Bars that padding to a square has left make the thumbnails of different slices alike.
    """
    shown = image != image[0, 0]
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image


# On the doctor slices of COVID-SemiSeg, pairs above this correlation are neighbouring slices of one scan
# (seen by eye). A low bar is the safe side: it can only make groups larger.
SAME_SCAN_CORRELATION = 0.85
# Measured on upright slices: thumbnails of different patients correlate by 0.934 (COVID-SemiSeg) and 0.943
# (eight chest CTs in HU) at most, those of a slice at another size and window (cut by up to 30 % on the
# bright side, 20 % on the dark side) by 0.938 at least, and 99 % of them above 0.96.
SAME_SLICE_CORRELATION = 0.95
MOST_OF_ALL = 0.5
"""A group with more than this share of all pictures has joined different scans through chains."""
BLOCK = 1024  # pictures compared with all others at a time


def same_slice_groups(samples: Sequence[Sample]) -> list[int]:
    """Returns a group number for each slice; copies at another size, window or padding share one.

    Raises:
        UserError: a file is unreadable.
    """
    if not samples:
        return []
    thumbnails = [thumbnail(without_padding(_upright(sample.image))) for sample in samples]
    return connected(_alike(np.stack(thumbnails), SAME_SLICE_CORRELATION), len(samples))


def near_duplicate_groups(samples: Sequence[Sample], threshold: float = SAME_SCAN_CORRELATION) -> list[int]:
    """Returns a group number for each slice; slices whose thumbnails correlate by ``threshold`` share one.

    Groups are joined through chains (single linkage) and numbered in the order of ``samples``. Where chains
    join most of a larger set, as they do with whole chest CTs, groups are made as in `scan_groups`.

    Raises:
        UserError: a file is unreadable.
    """
    if not samples:
        return []
    thumbnails = _thumbnails(samples)
    groups = connected(_alike(thumbnails, threshold), len(samples))
    largest = np.bincount(groups).max()
    return groups if largest <= MOST_OF_ALL * len(samples) else _in_order(thumbnails)


def scan_groups(samples: Sequence[Sample]) -> list[int]:
    """Returns a group number for each of the slices, which are in the order of their scans.

    Similar neighbours share a group, and so do copies. On eight chest CTs of 1 to 8 mm neighbouring slices
    correlate by at least 0.953, the last of one scan and the first of the next by at most 0.724.

    Raises:
        UserError: a file is unreadable.
    """
    return _in_order(_thumbnails(samples)) if samples else []


def _thumbnails(samples: Sequence[Sample]) -> np.ndarray:
    return np.stack([thumbnail(_upright(sample.image)) for sample in samples])  # (N, T * T)


def _upright(path: Path) -> np.ndarray:
    """Reads the only slice of a file, (H, W), in any range."""
    if not is_volume(path):
        return read_picture(path)[0]
    volume = open_volume(path)
    return to_unit(volume.array.squeeze(), WINDOWS["lung"], volume.is_hu, volume.source_range)


def _in_order(thumbnails: np.ndarray) -> list[int]:
    first = np.flatnonzero((thumbnails[:-1] * thumbnails[1:]).sum(1) >= SAME_SCAN_CORRELATION)
    neighbours = np.stack([first, first + 1], axis=1)  # (P, 2)
    same = _alike(thumbnails, SAME_SLICE_CORRELATION)
    return connected(np.concatenate([neighbours, same]), len(thumbnails))


def _alike(thumbnails: np.ndarray, threshold: float, sets: np.ndarray | None = None) -> np.ndarray:
    """Returns index pairs (P, 2) that correlate by at least ``threshold``, with i = j among them.

    Args:
        sets: (N,) numbers; pairs within one set are left out. None for all pairs.
    """
    pairs = []
    for start in range(0, len(thumbnails), BLOCK):
        similar = thumbnails[start : start + BLOCK] @ thumbnails.T >= threshold
        if sets is not None:
            similar &= sets[start : start + BLOCK, None] != sets
        pairs.append(np.add(np.argwhere(similar), [start, 0]))
    return np.concatenate(pairs)


def connected(pairs: np.ndarray, count: int) -> list[int]:
    """Returns a group number for each of ``count`` things; pairs (P, 2) and chains of pairs share one.

    Groups are numbered in the order of the things.

    Example:
        >>> connected(np.array([[0, 3], [3, 1]]), 4)
        [0, 0, 1, 0]
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(links, directed=False)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]


LEAST_SLICES = 8
"""With fewer nothing is said of a set's names."""
MANY = 0.5
"""Share of slices that would be patients of their own, from which on they are looked at."""
SPLITS_FILE = "splits.json"

S = TypeVar("S", bound=Sample)


def keep_scans_together(records: Sequence[S], folder: Path, pattern: str | None = None) -> list[S]:
    """The records with `Sample.person` set where most slices would be patients of their own.

    Slices whose names tell no patient (``0012.png``, ``IMG0012.png``) lie in the order of their scans, so
    those that `common.data.patients.scan_groups` finds alike are taken for one person's. One line
    warns of it and names three examples. A folder with a ``splits.json`` of its own is left alone.

    Args:
        records: one a file, of slices or volumes.
        folder: the data set's.
        pattern: what their patients were told by, see `common.data.patients.identify_patient`.
    Raises:
        UserError: a slice is unreadable.
    """
    slices = [record for record in records if not is_volume(record.image) or is_single_slice(record.image)]
    times = Counter(record.patient for record in slices)
    single = [record.image for record in slices if times[record.patient] == 1 and not record.person]
    alone = {image for image in single if not identify_patient(image, pattern).identified}
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
        thumbnails: (N, T * T), see `thumbnail`.
    """
    number = np.unique(sets, return_inverse=True)[1]
    links = [
        (samples[i].patient, samples[j].patient)
        for i, j in _alike(thumbnails, SAME_SLICE_CORRELATION, number)
    ]
    persons = joined_persons({sample.patient for sample in samples}, links)
    return [replace(sample, person=persons[sample.patient]) for sample in samples]


def joined_persons(patients: Collection[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The person of each patient: the first by name of those that links and chains of links connect.

    Example:
        >>> joined_persons(["scan3", "scan2", "scan1"], [("scan3", "scan1")])
        {'scan1': 'scan1', 'scan2': 'scan2', 'scan3': 'scan1'}
    """
    names = sorted(patients)
    number = {name: index for index, name in enumerate(names)}
    pairs = np.array([(number[one], number[other]) for one, other in links], np.int64).reshape(-1, 2)
    first: dict[int, str] = {}
    groups = connected(pairs, len(names))
    return {name: first.setdefault(group, name) for name, group in zip(names, groups, strict=True)}
