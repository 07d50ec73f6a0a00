"""Banks of nodules and of slices, a folder each: what the stages exchange."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.files import atomic_write, read_json, write_json

RECORDS = "records.json"
"""Written last: a folder with it is complete."""
REAL, GENERATED = "real", "generated"


@dataclass(frozen=True)
class NoduleRecord:
    """Metadata of a nodule.

    Args:
        name: unique in its bank, and a valid file name.
        patient: of a real nodule; empty for generated ones.
        category: class such as ``solid`` or ``malignant``; empty if there are none.
        diameter_mm: of the disc with the mask's area.
        spacing_mm: side of a pixel.
        origin: `REAL` or `GENERATED`.
        similarity: of a generated nodule to the most similar real one, in [0, 1]; None for real ones.
    """

    name: str
    patient: str
    category: str
    diameter_mm: float
    spacing_mm: float
    origin: str = REAL
    similarity: float | None = None


@dataclass(frozen=True)
class SliceRecord:
    """Metadata of a slice.

    Args:
        name: unique in its bank, and a valid file name.
        patient: of a real slice; empty for generated ones.
        spacing_mm: side of a pixel.
        nominal_hu: the file had 8 bits; HU follow from an assumed window.
        origin, similarity: as in `NoduleRecord`.
        part: a window that shows a part of the chest; its lung is 1, right or left.
    """

    name: str
    patient: str
    spacing_mm: float
    nominal_hu: bool = False
    origin: str = REAL
    similarity: float | None = None
    part: bool = False


@dataclass(frozen=True)
class NoduleBank:
    """A bank of nodule crops.

    Example:
        >>> record = NoduleRecord("n1", "patient_1", "solid", 7.5, 0.7)
        >>> bank = NoduleBank(np.zeros((1, 32, 32), np.int16), np.zeros((1, 32, 32), np.uint8), [record])
        >>> len(bank.select(lambda record: record.diameter_mm > 5))
        1

    Args:
        hu: (N, S, S) int16, the crop with the lung around the nodule.
        alpha: (N, S, S) uint8, the nodule's mask with a soft rim: 0 outside, 128 on its border, 255 inside.
            It is a label, not a blending weight: pixels of the rim are mixtures already.
        records: of the N nodules.
    """

    hu: NDArray[np.int16]
    alpha: NDArray[np.uint8]
    records: Sequence[NoduleRecord]

    def __len__(self) -> int:
        return len(self.records)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``hu.npy``, ``alpha.npy`` and, last, ``records.json``, each atomically."""
        return _save(folder, {"hu": self.hu, "alpha": self.alpha}, self.records)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], mapped: bool = False) -> NoduleBank:
        """Reads what `save` wrote.

        Args:
            folder: of the bank.
            mapped: memory-map the arrays, read-only.
        Raises:
            UserError: the bank is missing, empty or incomplete.
        """
        arrays, records = _load(folder, ("hu", "alpha"), NoduleRecord, "nodules", mapped)
        return cls(arrays["hu"], arrays["alpha"], records)

    def select(self, keep: Callable[[NoduleRecord], bool]) -> NoduleBank:
        """The nodules whose record ``keep`` accepts."""
        indices = [index for index, record in enumerate(self.records) if keep(record)]
        return NoduleBank(self.hu[indices], self.alpha[indices], [self.records[i] for i in indices])


@dataclass(frozen=True)
class SliceBank:
    """A bank of axial slices, upright: row 0 at the front of the patient, column 0 at the patient's right.

    Args:
        hu: (M, H, W) int16.
        lung: (M, H, W) uint8: 0 outside, 1 right, 2 left lung, with the nodules and vessels inside.
        nodules: (M, H, W) uint8: 0 background, else the category's index + 1, or 1 if there are none.
        records: of the M slices.
    """

    hu: NDArray[np.int16]
    lung: NDArray[np.uint8]
    nodules: NDArray[np.uint8]
    records: Sequence[SliceRecord]

    def __len__(self) -> int:
        return len(self.records)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``hu.npy``, ``lung.npy``, ``nodules.npy`` and, last, ``records.json``, each atomically."""
        return _save(folder, {"hu": self.hu, "lung": self.lung, "nodules": self.nodules}, self.records)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], mapped: bool = False) -> SliceBank:
        """Reads what `save` wrote.

        Args:
            folder, mapped: as in `NoduleBank.load`.
        Raises:
            UserError: the bank is missing, empty or incomplete.
        """
        arrays, records = _load(folder, ("hu", "lung", "nodules"), SliceRecord, "slices", mapped)
        return cls(arrays["hu"], arrays["lung"], arrays["nodules"], records)

    def select(self, keep: Callable[[SliceRecord], bool]) -> SliceBank:
        """The slices whose record ``keep`` accepts."""
        indices = [index for index, record in enumerate(self.records) if keep(record)]
        records = [self.records[i] for i in indices]
        return SliceBank(self.hu[indices], self.lung[indices], self.nodules[indices], records)


R = TypeVar("R", NoduleRecord, SliceRecord)


def _save(folder: str | os.PathLike[str], arrays: dict[str, np.ndarray], records: Sequence[Any]) -> Path:
    target = Path(folder)
    (target / RECORDS).unlink(missing_ok=True)
    for name, array in arrays.items():
        with atomic_write(target / f"{name}.npy") as temporary:
            np.save(temporary, array)
    write_json(target / RECORDS, [asdict(record) for record in records])
    return target


def _load(
    folder: str | os.PathLike[str], names: Sequence[str], kind: type[R], what: str, mapped: bool
) -> tuple[dict[str, np.ndarray], list[R]]:
    """The arrays by name and the records; keys of records that ``kind`` does not know are ignored."""
    target = Path(folder)
    if not (target / RECORDS).is_file():
        raise UserError(f"{target}: no bank of {what} here; run the stage that makes it")
    known = {field.name for field in fields(kind)}
    records = [
        kind(**{key: value for key, value in entry.items() if key in known})
        for entry in read_json(target / RECORDS)
    ]
    if not records:
        raise UserError(f"{target}: the bank holds no {what}; the stage that made it found none")
    arrays = {name: _array(target / f"{name}.npy", len(records), mapped) for name in names}
    return arrays, records


def _array(path: Path, count: int, mapped: bool) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the stage that makes it again") from error
    if len(array) != count:
        raise UserError(f"{path}: {len(array)} entries for {count} records; run the stage again")
    return array
