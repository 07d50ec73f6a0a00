"""Data sets of phantoms: NIfTI images, lesion masks and label maps in a folder that is whole or absent."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from common.data.phantoms.lesions import lesion_share
from common.data.phantoms.render import SHAPE, Phantom, make_phantom
from common.errors import UserError
from common.files import atomic_write, read_json, write_json
from common.provenance import mark_header

VERSION = 1
"""To be increased whenever the same settings give other voxels: older folders are then not used."""
RECORD = "phantom.json"
"""Written last: a folder with this file is complete."""
NATIVE_FOLDER = "native"
"""Folder of the scans without contrast agent, under the file names of ``images/``."""
DESCRIP = "synthetic, drawn phantom"
LABEL_FOLDERS = {"lesion": "masks", "lung": "labels/lung", "nodule": "labels/nodule", "heart": "labels/heart"}
WARNING = (
    "PHANTOM DATA: %d phantom patients in %s; drawn shapes, not patients; they prove nothing about real CT"
)


@dataclass(frozen=True)
class PhantomSettings:
    """All settings that determine the voxels of a folder of phantoms."""

    patients: int = 16
    seed: int = 0
    shape: tuple[int, int, int] = SHAPE
    with_lesions: bool = True
    with_nodules: bool = True
    contrasts: bool = False
    version: int = VERSION

    def record(self) -> dict[str, Any]:
        """Returns the settings as stored in JSON; ``contrasts`` only if on, as in older folders."""
        settings = {**asdict(self), "shape": [int(n) for n in self.shape]}
        if not self.contrasts:
            del settings["contrasts"]
        return settings

    def short_hash(self) -> str:
        """Returns eight hexadecimal digits of a hash of the settings."""
        return hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:8]


def ensure_phantoms(
    folder: str | os.PathLike[str],
    patients: int = 16,
    seed: int = 0,
    shape: Sequence[int] = SHAPE,
    with_lesions: bool = True,
    with_nodules: bool = True,
    contrasts: bool = False,
) -> Path:
    """Returns a complete folder of phantoms with these settings and makes it if there is none.

    Nothing is overwritten: if ``folder`` holds anything else (phantoms of other settings, other files), the
    sibling ``<folder>-<8 digits of the settings' hash>`` is used. Each call logs a warning that this is
    phantom data.

    Args:
        folder: where the phantoms should lie.
        patients, seed, shape, with_lesions, with_nodules, contrasts: see `make_phantom`.
    Returns:
        ``folder`` or that sibling.
    Raises:
        UserError: both places are taken by something else, or a setting is out of range.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     phantoms = ensure_phantoms(Path(folder) / "phantoms", patients=1, shape=(16, 16, 8))
        ...     sorted(path.name for path in phantoms.iterdir())
        ['images', 'labels', 'masks', 'phantom.json']
    """
    x, y, z = _three(shape)
    settings = PhantomSettings(patients, seed, (x, y, z), with_lesions, with_nodules, contrasts)
    first = Path(folder)
    for place in (first, first.with_name(f"{first.name}-{settings.short_hash()}")):
        if not is_complete(place, settings) and _taken(place):
            continue
        if not is_complete(place, settings):
            write_phantoms(place, settings)
        logging.getLogger(__name__).warning(WARNING, patients, place)
        return place
    raise UserError(f"{place}: holds something other than these phantoms; move it or choose another folder")


def is_complete(folder: Path, settings: PhantomSettings) -> bool:
    """Returns whether ``folder`` holds finished phantoms of exactly these settings."""
    path = folder / RECORD
    record = read_json(path) if path.is_file() else None
    return isinstance(record, dict) and record.get("settings") == settings.record()


def write_phantoms(folder: str | os.PathLike[str], settings: PhantomSettings) -> None:
    """Makes all patients in a temporary folder next to ``folder``, then renames it.

    Files: ``images/phantom_000.nii.gz`` (int16 HU), ``masks/`` (lesions), ``labels/{lung,nodule,heart}/``
    under the same names, with ``contrasts`` also ``native/`` (the same patients without contrast agent), and
    ``phantom.json``.

    Raises:
        UserError: ``folder`` is not empty, cannot be written, or a setting is out of range.
    """
    if settings.patients < 1:
        raise UserError(f"{folder}: {settings.patients} phantom patients requested; give at least 1")
    target = Path(folder)
    with _built_beside(target, settings) as temporary:
        patients = []
        for patient in tqdm(range(settings.patients), desc="making phantoms", unit="patient", leave=False):
            phantom = make_phantom(
                settings.seed,
                patient,
                settings.shape,
                settings.with_lesions,
                settings.with_nodules,
                settings.contrasts,
            )
            name = f"phantom_{patient:03d}"
            save_phantom(phantom, temporary, name)
            share = lesion_share(phantom.labels["lesion"])
            patients.append({"name": name, "lesion_slices": round(share, 4)})
        write_json(
            temporary / RECORD, {"kind": "phantom", "settings": settings.record(), "patients": patients}
        )


def save_phantom(phantom: Phantom, folder: Path, name: str) -> None:
    """Writes the images and label maps of one patient as ``NAME.nii.gz`` into the folders of the data set."""
    save_volume(folder / "images" / f"{name}.nii.gz", phantom.image, phantom.affine)
    if phantom.native is not None:
        save_volume(folder / NATIVE_FOLDER / f"{name}.nii.gz", phantom.native, phantom.affine)
    for kind, place in LABEL_FOLDERS.items():
        save_volume(folder / place / f"{name}.nii.gz", phantom.labels[kind], phantom.affine)


def save_volume(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Writes a NIfTI volume in mm with the affine as both qform and sform (scanner coordinates).

    The header says that it is synthetic.
    """
    volume = nib.Nifti1Image(voxels, affine)
    volume.set_sform(affine, code="scanner")
    volume.set_qform(affine, code="scanner")
    volume.header.set_xyzt_units("mm")
    mark_header(volume.header, DESCRIP)
    with atomic_write(path) as temporary:
        nib.save(volume, temporary)


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise UserError(f"phantom shape {tuple(shape)}: give three whole numbers")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _taken(place: Path) -> bool:
    return place.is_file() or (place.is_dir() and any(place.iterdir()))


@contextmanager
def _built_beside(target: Path, settings: PhantomSettings) -> Iterator[Path]:
    """Yields an empty folder that becomes ``target`` when the block ends well and is removed otherwise."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, target)
    except OSError as error:
        # Another process (a second rank) may have finished the same folder meanwhile.
        if not is_complete(target, settings):
            raise UserError(
                f"{target}: cannot be written ({error.strerror}); choose another folder"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
