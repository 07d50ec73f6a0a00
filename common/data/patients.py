"""Whose scan or slice a file is: told by its DICOM header or its name, in the field's ways of naming."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from common.data.samples import stem
from common.data.volume_files import (
    DICOM_SUFFIXES,
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    is_volume,
    itk_geometry,
    nifti_geometry,
    source_parts,
)
from common.errors import UserError

# Names that `common.data.harmonise` writes, PATIENT_NUMBER; what is made of one, PATIENT_NUMBER_variant02.
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
    """The patient of a file or of a DICOM series' folder, see `whose`."""
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
    """Whether a NIfTI or MetaImage file holds one slice, by its header; False where it cannot be read."""
    known = path.name.lower()
    if path.is_dir() or not known.endswith((*NIFTI_SUFFIXES, *META_SUFFIXES)) or not path.is_file():
        return False
    try:
        extent = (nifti_geometry(path) if known.endswith(NIFTI_SUFFIXES) else itk_geometry(path))[0]
    except Exception:  # whoever reads the voxels says what is wrong with it
        return False
    return min(extent) == 1


def names_patient(folder_name: str) -> bool:
    """Whether a folder is called as patients are: ``case12``, ``P001``, ``1001``, ``sub-03``."""
    known = _IDENTIFIER.search(folder_name) or _NUMBERED.match(folder_name)
    return known is not None or re.fullmatch(r"[A-Za-z]{0,3}[_-]?\d{3,}", folder_name) is not None


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its suffix, or a folder of such files is one series."""
    return bool(series_of(path)) if path.is_dir() else path.name.lower().endswith(DICOM_SUFFIXES)


def series_of(folder: Path) -> str:
    """``SeriesInstanceUID`` of a folder of DICOM slices that all belong to one series; else ""."""
    files = [file for file in sorted(folder.iterdir()) if not file.name.startswith(".")]
    suffixes = ("", *DICOM_SUFFIXES)
    if not files or not all(file.is_file() and file.suffix.lower() in suffixes for file in files):
        return ""
    found = {_header(files[place])["SeriesInstanceUID"] for place in (0, len(files) // 2, -1)}
    return found.pop() if len(found) == 1 and len(files) > 1 else ""


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
    if not first.name.lower().endswith(DICOM_SUFFIXES) and not image.is_dir():
        return ""
    header = _header(first)
    if not _NOBODY.fullmatch(header["PatientID"]):
        return header["PatientID"]
    return "" if image.is_dir() else header["SeriesInstanceUID"]


def _header(file: Path) -> dict[str, str]:
    """Whose a DICOM file is; empty values where it does not say so or cannot be read."""
    tags = ["PatientID", "SeriesInstanceUID"]
    try:
        import pydicom  # shared bundles do without, until a file needs it

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
