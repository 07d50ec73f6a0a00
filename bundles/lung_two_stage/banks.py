"""Banks of nodules and of slices, a folder each: what the stages exchange."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

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


class _Bank:
    """Arrays of N entries, one a field of the subclass, and a record of each."""

    records: Sequence[Any]
    record_type: ClassVar[type]
    what: ClassVar[str]

    def __len__(self) -> int:
        return len(self.records)

    @classmethod
    def array_names(cls) -> list[str]:
        """The fields that hold arrays."""
        return [field.name for field in fields(cls) if field.name != "records"]  # type: ignore[arg-type]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes an ``.npy`` file for each array and, last, ``records.json``, each atomically."""
        target = Path(folder)
        (target / RECORDS).unlink(missing_ok=True)
        for name in self.array_names():
            with atomic_write(target / f"{name}.npy") as temporary:
                np.save(temporary, getattr(self, name))
        write_json(target / RECORDS, [asdict(record) for record in self.records])
        return target

    @classmethod
    def load(cls, folder: str | os.PathLike[str], mapped: bool = False) -> Self:
        """Reads what `save` wrote; entries of records that this version does not know are ignored.

        Args:
            folder: of the bank.
            mapped: memory-map the arrays, read-only.
        Raises:
            UserError: the bank is missing, empty or incomplete.
        """
        target = Path(folder)
        if not (target / RECORDS).is_file():
            raise UserError(f"{target}: no bank of {cls.what} here; run the stage that makes it")
        known = {field.name for field in fields(cls.record_type)}
        records = [
            cls.record_type(**{key: value for key, value in entry.items() if key in known})
            for entry in read_json(target / RECORDS)
        ]
        if not records:
            raise UserError(f"{target}: the bank holds no {cls.what}; the stage that made it found none")
        arrays = {name: _array(target / f"{name}.npy", len(records), mapped) for name in cls.array_names()}
        return cls(**arrays, records=records)  # type: ignore[call-arg]

    def take(self, indices: Sequence[int]) -> Self:
        """The entries at ``indices``, in their order."""
        chosen = list(indices)
        arrays = {name: getattr(self, name)[chosen] for name in self.array_names()}
        return type(self)(**arrays, records=[self.records[index] for index in chosen])  # type: ignore[call-arg]

    def select(self, keep: Callable[[Any], bool]) -> Self:
        """The entries whose record ``keep`` accepts."""
        return self.take([index for index, record in enumerate(self.records) if keep(record)])

    def concatenate(self, other: Self) -> Self:
        """The entries of both banks."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.array_names()
        }
        return type(self)(**arrays, records=[*self.records, *other.records])  # type: ignore[call-arg]


@dataclass(frozen=True)
class NoduleBank(_Bank):
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
    record_type, what = NoduleRecord, "nodules"


@dataclass(frozen=True)
class SliceBank(_Bank):
    """A bank of axial slices, upright: row 0 at the front of the patient, column 0 at the patient's right.

    Args:
        hu: (M, H, W) int16.
        lung: (M, H, W) uint8: 0 outside, 1 right, 2 left lung, with the nodules and vessels inside.
        nodules: (M, H, W) uint8: 0 background, else the category's index + 1, or 1 if there are none.
        records: of the M slices.

    Example:
        >>> plane = np.zeros((1, 64, 64), np.uint8)
        >>> bank = SliceBank(plane.astype(np.int16), plane, plane, [SliceRecord("s1", "patient_1", 2.5)])
        >>> len(bank.concatenate(bank))
        2
    """

    hu: NDArray[np.int16]
    lung: NDArray[np.uint8]
    nodules: NDArray[np.uint8]
    records: Sequence[SliceRecord]
    record_type, what = SliceRecord, "slices"


def _array(path: Path, count: int, mapped: bool) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the stage that makes it again") from error
    if len(array) != count:
        raise UserError(f"{path}: {len(array)} entries for {count} records; run the stage again")
    return array
