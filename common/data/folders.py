"""What a folder holds: its images, and the files that are left out. All layouts look for images here."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.data.dicom_io import in_series
from common.data.formats import PICTURE_SUFFIXES, READ, has_suffix, is_dicom_file, is_image
from common.data.volume_io import source_parts
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
    series = _series_of({place: in_series(files) for place, files in slices.items()})
    previews = {file for file in images if file.parent in series and has_suffix(file, PICTURE_SUFFIXES)}
    return sorted({*images, *series} - previews)


def _series_of(held: Mapping[Path, dict[str, list[Path]]]) -> set[Path]:
    """Returns the folders that hold one series each, and the files of folders that hold several."""
    found = {f for parts in held.values() if len(parts) > 1 for files in parts.values() for f in files}
    places: dict[str, list[Path]] = defaultdict(list)
    for place, parts in held.items():
        if len(parts) == 1:
            places[next(iter(parts))].append(place)
    for uid, folders in places.items():
        whole = Path(os.path.commonpath(folders))
        alone = uid and all(place in folders for place in held if place.is_relative_to(whole))
        for top in [whole] if alone else folders:
            files = [file for place in folders if place.is_relative_to(top) for file in held[place][uid]]
            found.add(top if len(files) > 1 else files[0])
    return found


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
    hidden = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
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
