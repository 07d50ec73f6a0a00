"""What the stages hand to each other: banks of nodules and of slices, one folder each."""

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
"""Written last: a folder that holds it is complete."""
REAL, GENERATED = "real", "generated"


@dataclass(frozen=True)
class NoduleRecord:
    """Where a nodule comes from.

    Args:
        name: unique in its bank and safe as a file name.
        patient: of a real one; empty for generated ones.
        category: class such as ``solid`` or ``malignant``; empty where there are none.
        diameter_mm: of the disc with the mask's area.
        spacing_mm: side of a pixel.
        origin: `REAL` or `GENERATED`.
        similarity: of a generated one to the nearest real one, 0 to 1; None for real ones.
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
    """Where a slice comes from.

    Args:
        name: unique in its bank and safe as a file name.
        patient: of a real one; empty for generated ones.
        spacing_mm: side of a pixel.
        nominal_hu: the file had 8 bits, its HU are those of a window taken for granted.
        origin, similarity: as in `NoduleRecord`.
        part: of a window that shows a part of the chest; its lung is 1, whichever it is.
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
    """Nodule crops.

    Args:
        hu: (N, S, S) int16, the crop with the lung around the nodule.
        alpha: (N, S, S) uint8, the nodule's mask with a soft rim: 0 outside, 128 on its border, 255 inside. A
            label: the pixels of the rim are mixtures already and must not be mixed by it again.
        records: N.
    """

    hu: NDArray[np.int16]
    alpha: NDArray[np.uint8]
    records: Sequence[NoduleRecord]

    def __len__(self) -> int:
        return len(self.records)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``hu.npy``, ``alpha.npy`` and ``records.json``; atomic one by one, the records last."""
        return _save(folder, {"hu": self.hu, "alpha": self.alpha}, self.records)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], mapped: bool = False) -> NoduleBank:
        """Reads what `save` wrote.

        Args:
            mapped: the arrays stay on disk, read-only, and share their memory with other processes.
        Raises:
            UserError: no such bank, an empty or an incomplete one.
        """
        arrays, records = _load(folder, ("hu", "alpha"), NoduleRecord, "nodules", mapped)
        return cls(arrays["hu"], arrays["alpha"], records)

    def chosen(self, keep: Callable[[NoduleRecord], bool]) -> NoduleBank:
        """The nodules whose record ``keep`` accepts."""
        places = [index for index, record in enumerate(self.records) if keep(record)]
        return NoduleBank(self.hu[places], self.alpha[places], [self.records[i] for i in places])


@dataclass(frozen=True)
class SliceBank:
    """Axial slices, upright: row 0 at the front of the patient, column 0 at the patient's right.

    Args:
        hu: (M, H, W) int16.
        lung: (M, H, W) uint8: 0 outside, 1 right, 2 left lung (nodules and vessels within included).
        nodules: (M, H, W) uint8: the category's number + 1, or 1 where there are no categories; 0 none.
        records: M.
    """

    hu: NDArray[np.int16]
    lung: NDArray[np.uint8]
    nodules: NDArray[np.uint8]
    records: Sequence[SliceRecord]

    def __len__(self) -> int:
        return len(self.records)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``hu.npy``, ``lung.npy``, ``nodules.npy`` and ``records.json``; as `NoduleBank.save`."""
        return _save(folder, {"hu": self.hu, "lung": self.lung, "nodules": self.nodules}, self.records)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], mapped: bool = False) -> SliceBank:
        """Reads what `save` wrote.

        Args:
            mapped: as in `NoduleBank.load`.
        Raises:
            UserError: no such bank, an empty or an incomplete one.
        """
        arrays, records = _load(folder, ("hu", "lung", "nodules"), SliceRecord, "slices", mapped)
        return cls(arrays["hu"], arrays["lung"], arrays["nodules"], records)

    def chosen(self, keep: Callable[[SliceRecord], bool]) -> SliceBank:
        """The slices whose record ``keep`` accepts."""
        places = [index for index, record in enumerate(self.records) if keep(record)]
        return SliceBank(
            self.hu[places], self.lung[places], self.nodules[places], [self.records[i] for i in places]
        )


R = TypeVar("R", NoduleRecord, SliceRecord)


def _save(folder: str | os.PathLike[str], arrays: dict[str, np.ndarray], records: Sequence[Any]) -> Path:
    place = Path(folder)
    (place / RECORDS).unlink(missing_ok=True)
    for name, array in arrays.items():
        with atomic_write(place / f"{name}.npy") as temporary:
            np.save(temporary, array)
    write_json(place / RECORDS, [asdict(record) for record in records])
    return place


def _load(
    folder: str | os.PathLike[str], names: Sequence[str], kind: type[R], what: str, mapped: bool
) -> tuple[dict[str, np.ndarray], list[R]]:
    place = Path(folder)
    if not (place / RECORDS).is_file():
        raise UserError(f"{place}: no bank of {what} here; run the stage that makes it")
    known = {field.name for field in fields(kind)}
    records = [
        kind(**{key: value for key, value in entry.items() if key in known})
        for entry in read_json(place / RECORDS)
    ]
    if not records:
        raise UserError(f"{place}: the bank holds no {what}; the stage that made it found none")
    arrays = {name: _array(place / f"{name}.npy", len(records), mapped) for name in names}
    return arrays, records


def _array(path: Path, count: int, mapped: bool) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the stage that makes it again") from error
    if len(array) != count:
        raise UserError(f"{path}: {len(array)} entries for {count} records; run the stage again")
    return array
