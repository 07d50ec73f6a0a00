"""Images in NumPy files, and in a bank: ``hu.npy``, its nodules, and ``records.json`` beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from common.data.intensity import offset_to_hu, value_range
from common.data.pictures import EIGHT_BITS, SIXTEEN_BITS
from common.data.reading import Pixels
from common.data.unreadable import explained
from common.errors import UserError
from common.files import read_json
from common.trust.files import HALF, files_below
from common.trust.loaded import Loaded, prepared, prepared_label
from common.trust.settings import ReadingSettings

SUFFIX = ".npy"
BANK, RECORDS = "hu.npy", "records.json"
LABELS = {"alpha.npy": HALF, "nodules.npy": 1}
"""Of a bank: the file that says where nodules are, and the value from which on a pixel is one."""
NETWORK = (-1.0, 1.0)


def array_slices(folder: Path, settings: ReadingSettings) -> list[Loaded]:
    """All slices of the NumPy files below ``folder``; of a bank, its gray values with its nodules as labels.

    Raises:
        UserError: an unreadable file, another shape than (H, W), (N, H, W) or (N, 1, H, W), or NaN.
    """
    files = array_files(folder)
    if folder / BANK in files:
        slices = _of_file(folder / BANK, folder, settings, read_json(folder / RECORDS))
        return _with_nodules(slices, folder, settings)
    return [loaded for file in files for loaded in _of_file(file, folder, settings, ())]


def array_files(folder: Path) -> list[Path]:
    """The NumPy files below ``folder``."""
    return [file for file in files_below(folder) if file.suffix == SUFFIX]


def meaning(array: np.ndarray, name: object, hu_offset: float | None = None) -> Pixels:
    """What an array's values are: int16 are HU; uint8 and uint16 use their type's range; real numbers lie in
    0..1, in -1..1 as a network has them, or are HU.

    Args:
        array: (H, W).
        name: of the file, for messages.
        hu_offset: see `common.data.intensity.offset_to_hu`.
    Raises:
        UserError: NaN, a type that holds no gray values, or values that should be HU and are not.
    """
    if array.dtype.kind not in "uif":
        raise UserError(
            f"{name}: holds {array.dtype} values, which are no gray values; save int16 HU or float32"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{name}: holds NaN or infinite values; repair or remove the file")
    values = np.asarray(array, np.float32)
    if array.dtype == np.uint8 or array.dtype == np.uint16:
        return Pixels(values, False, EIGHT_BITS if array.dtype == np.uint8 else SIXTEEN_BITS)
    lowest, highest = float(values.min()), float(values.max())
    if array.dtype.kind == "f" and lowest >= -1 and highest <= 1:
        return Pixels(values, False, (0.0, 1.0) if lowest >= 0 else NETWORK)
    offset = offset_to_hu(value_range(values), hu_offset, name)
    return Pixels(values + np.float32(offset), True, EIGHT_BITS)


def _of_file(file: Path, folder: Path, settings: ReadingSettings, records: Any) -> list[Loaded]:
    with explained(file):
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]  # (N, 1, H, W) -> (N, H, W)
    if array.ndim not in (2, 3) or array.size == 0:
        raise UserError(f"{file}: has shape {array.shape}; save images as (H, W) or (N, H, W)")
    stack, single = (array[None], True) if array.ndim == 2 else (array, False)
    if len(records) not in (0, len(stack)):
        raise UserError(
            f"{folder / RECORDS}: {len(records)} records for {len(stack)} images; make the bank anew"
        )
    name = file.relative_to(folder).as_posix()
    return [
        _loaded(plane, name if single else f"{name}#{place:06d}", settings, records[place] if records else {})
        for place, plane in enumerate(stack)
    ]


def _with_nodules(slices: list[Loaded], folder: Path, settings: ReadingSettings) -> list[Loaded]:
    """A bank's slices with their labels, where it has some."""
    file = next((folder / name for name in LABELS if (folder / name).is_file()), None)
    if file is None:
        return slices
    with explained(file):
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    if len(values) != len(slices):
        raise UserError(f"{file}: {len(values)} entries for {len(slices)} images; make the bank anew")
    least = LABELS[file.name]
    labels = [prepared_label((plane >= least).astype(np.uint8), settings) for plane in values]
    return [replace(loaded, label=label) for loaded, label in zip(slices, labels, strict=True)]


def _loaded(plane: np.ndarray, name: str, settings: ReadingSettings, record: Any) -> Loaded:
    pixels = meaning(plane, name, 0.0 if record else settings.hu_offset)  # a bank's values are HU
    patient = str(record.get("patient") or Path(name.partition("#")[0]).stem)
    return Loaded(prepared(pixels, settings), None, name, patient, patient, pixels.is_hu)
