"""Images in tar shards as WebDataset lays them out: ``KEY.image.npy``, ``KEY.mask.npy``, ``KEY.json``."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from common.data.intensity import Window
from common.data.reading import Pixels
from common.data.unreadable import explained
from common.errors import UserError
from common.files import read_json
from common.trust.arrays import meaning
from common.trust.loaded import Loaded, prepared, prepared_label
from common.trust.settings import ReadingSettings

SUFFIX = ".tar"
SUFFIXES = ("npy", "png", "nii.gz", "jpg", "jpeg")
DESCRIPTION = "composites.json"
"""Beside the shards: the window of their pictures."""
MOST_BYTES = 2**28
"""Of one member: no slice is that large."""


def shard_files(folder: Path) -> list[Path]:
    """The shards below ``folder``, sorted."""
    return sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())


def shard_slices(folder: Path, settings: ReadingSettings) -> list[Loaded]:
    """All samples of the shards below ``folder``. Nothing is unpacked to disk, and nothing in them is run.

    Raises:
        UserError: a damaged shard, or a sample without image.
    """
    window = _picture_window(folder)
    slices: list[Loaded] = []
    for path in shard_files(folder):
        try:
            with explained(path):
                for key, members in samples(path):
                    name = f"{path.relative_to(folder).as_posix()}#{key}"
                    slices.append(_loaded(name, members, settings, window))
        except tarfile.TarError as error:
            raise UserError(f"{path}: cannot be read ({error}); replace the shard or remove it") from error
    return slices


def samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each sample's key and files by suffix, in order.

    Raises:
        tarfile.TarError, OSError: damaged.
        UserError: a member is larger than any slice.
    """
    key, files = "", dict[str, bytes]()
    with tarfile.open(path, "r|") as tar:
        for member in tar:
            if not member.isreg():
                continue
            if member.size > MOST_BYTES:
                raise UserError(
                    f"{path}: {member.name} has {member.size} bytes, which is no slice; restore the shard"
                )
            here, _, suffix = Path(member.name).name.partition(".")
            if here != key and files:
                yield key, files
                files = {}
            file = tar.extractfile(member)
            key, files[suffix] = here, b"" if file is None else file.read()
    if files:
        yield key, files


def _loaded(
    name: str, files: Mapping[str, bytes], settings: ReadingSettings, window: Window | None
) -> Loaded:
    image, mask = _part(files, "image"), _part(files, "mask")
    if image is None:
        raise UserError(f"{name}: has no image among {', '.join(files)}; images are KEY.image.npy or .png")
    pixels = _pixels(*image, name, window, settings.hu_offset)
    label = None if mask is None else (_array(*mask) > 0).astype(np.uint8)
    if label is not None and label.shape != pixels.values.shape:
        raise UserError(
            f"{name}: the mask is {label.shape} but the image {pixels.values.shape}; make them anew"
        )
    patient = _patient(json.loads(files["json"]) if "json" in files else {}, name)
    small = None if label is None else prepared_label(label, settings)
    return Loaded(prepared(pixels, settings), small, name, patient, patient, pixels.is_hu)


def _part(files: Mapping[str, bytes], what: str) -> tuple[bytes, str] | None:
    """A sample's image or mask and the suffix of its kind; a file with no name but its kind is the image."""
    names = [f"{what}.{kind}" for kind in SUFFIXES] + (list(SUFFIXES) if what == "image" else [])
    name = next((name for name in names if name in files), None)
    return None if name is None else (files[name], name.removeprefix(f"{what}."))


def _pixels(content: bytes, kind: str, name: str, window: Window | None, hu_offset: float | None) -> Pixels:
    array = _array(content, kind)
    if array.ndim != 2:
        raise UserError(f"{name}: the image has shape {array.shape}; slices are gray, (H, W)")
    pixels = meaning(array, name, hu_offset)
    if window is None or pixels.is_hu or kind in ("npy", "nii.gz"):
        return pixels
    lower, upper = pixels.source_range
    unit = (pixels.values - np.float32(lower)) / np.float32(upper - lower)
    return Pixels(unit * np.float32(window.width) + np.float32(window.lower), True, pixels.source_range)


def _array(content: bytes, kind: str) -> np.ndarray:
    if kind == "npy":
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    if kind == "nii.gz":
        image = nib.Nifti1Image.from_bytes(gzip.decompress(content))
        return np.asarray(image.dataobj).squeeze().T  # (W, H, 1) -> (H, W)
    with Image.open(io.BytesIO(content)) as picture:
        array = np.asarray(picture)
    return array.astype(np.uint16) if array.dtype == np.int32 else array  # PIL's type of 16-bit pictures


def _patient(record: Mapping[str, Any], name: str) -> str:
    """Whose lung it is; a sample that does not say so is a patient of its own."""
    source = record.get("normal")
    return str((source if isinstance(source, Mapping) else record).get("patient") or name)


def _picture_window(folder: Path) -> Window | None:
    """The HU of black and white in the shards' pictures; None where nothing says so."""
    path = folder / DESCRIPTION
    limits = read_json(path).get("window_hu") if path.is_file() else None
    return None if limits is None else Window(float(limits[0]), float(limits[1]))
