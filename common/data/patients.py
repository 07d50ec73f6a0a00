"""Whose scan a file is, told from its name."""

from __future__ import annotations

import re
from pathlib import Path

from common.data.samples import stem
from common.data.volume_files import is_volume
from common.errors import UserError

# Plain slices: "case7_012" and "case7-012" belong to patient "case7", and so does what was made of one of
# them, "case7_012_variant02".
SLICE_PATTERN = r"^(?P<patient>.+)[_-]\d+(?:_variant\d+)?$"
# Pictures taken out of publications, as COVID-CT names them: "PAPER-p12-81_0" and "PAPER_0_1" show cases of
# one paper; "%" stands for "_" in the set's first release.
SOURCE_PATTERN = r"^(?P<patient>.+?)(?:-p\d+-.*|(?:[_%-]\d+)+)$"
# Volumes: the frames of one cine series, as ACDC names them: "patient001_frame12"; variants as of slices.
FRAME_PATTERN = r"^(?P<patient>.+?)(?:[_-]frame_?\d+|_variant\d+)+$"


def default_pattern(image: Path) -> str:
    """The pattern that goes for this kind of file where nobody gives another."""
    return FRAME_PATTERN if is_volume(image) else SLICE_PATTERN


def patient_of(image: Path, pattern: str, name: str | None = None) -> str:
    """The patient named by ``pattern``'s group ``patient`` (or group 1, or the match) in the file's stem.

    Args:
        image: the file; a stem that the pattern does not match is a patient of its own.
        pattern: a regular expression, matched at the start.
        name: looked at instead of the file's stem.
    Raises:
        UserError: the pattern is no regular expression.
    """
    text = stem(image) if name is None else name
    try:
        match = re.match(pattern, text)
    except re.error as error:
        raise UserError(f"patient_pattern {pattern!r} is no regular expression ({error})") from error
    if match is None:
        return text
    return match["patient"] if "patient" in match.re.groupindex else match.group(1 if match.re.groups else 0)
