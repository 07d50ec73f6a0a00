"""Pairs of files with equal names in ``images/`` and ``masks/``."""

from __future__ import annotations

from pathlib import Path

from common.data.pictures import PICTURE_SUFFIXES
from common.data.samples import stem
from common.data.volume_files import VOLUME_SUFFIXES
from common.errors import UserError

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
        places = (folder / name for name in MASK_FOLDERS)
        masks_folder = next((place for place in places if place.is_dir()), folder / "masks")
    images, masks = files_by_stem(folder / images_folder), files_by_stem(masks_folder)
    if not images and not masks:
        raise UserError(
            f"{folder}: no images in {images_folder}/ and no masks in {masks_folder.name}/; "
            "put equal names into both"
        )
    _check_partners(images, masks, masks_folder, "image", "mask")
    _check_partners(masks, images, folder / images_folder, "mask", "image")
    return [(images[name], masks[name]) for name in sorted(images)]


def image_files(folder: Path) -> list[Path]:
    """Picture files, volumes and series folders in ``folder``, sorted by name; hidden files are left out.

    Raises:
        UserError: the folder is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; a data set has images/ and masks/ with equal file names")
    known = (*PICTURE_SUFFIXES, *VOLUME_SUFFIXES)
    found = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted(file for file in found if file.name.lower().endswith(known) or file.is_dir())


def files_by_stem(folder: Path) -> dict[str, Path]:
    """`image_files` by their name without suffix.

    Raises:
        UserError: the folder is missing, or two files differ in their suffix alone.
    """
    files: dict[str, Path] = {}
    for file in image_files(folder):
        if stem(file) in files:
            raise UserError(
                f"{file}: {files[stem(file)].name} beside it has the same name; keep one of the two"
            )
        files[stem(file)] = file
    return files


def _check_partners(
    files: dict[str, Path], partners: dict[str, Path], partner_folder: Path, what: str, partner: str
) -> None:
    lonely = sorted(files.keys() - partners.keys())
    if lonely:
        more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        raise UserError(
            f"{files[lonely[0]]}: {what} without {partner}{more}; "
            f"add {partner_folder / lonely[0]}.* or remove the {what}"
        )
