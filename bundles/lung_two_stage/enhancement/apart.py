"""The enhancer's real slices are of patients that the generation has not seen (paper D, stage 2)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bundles.lung_two_stage.banks import RECORDS, SliceRecord
from common.errors import UserError
from common.files import read_json


def refuse_shared_patients(
    slices: Sequence[SliceRecord],
    folder: str | os.PathLike[str],
    used: Iterable[str | os.PathLike[str]],
) -> None:
    """Checks that no slice is of a patient, and none has the name of a slice, in the banks of ``used``.

    Args:
        slices: real slices, of the bank ``folder``.
        used: folders of banks that something else was made of: nodules, normal slices.
    Raises:
        UserError: names the patient; or a slice does not tell its patient, or a bank is missing.
    """
    nameless = next((record.name for record in slices if not record.patient), None)
    if nameless is not None:
        raise UserError(f"{folder}: slice {nameless} names no patient; it cannot be told apart from training")
    patients = {record.patient for record in slices}
    for bank in map(Path, used):
        shared = patients & patients_of(bank)
        if shared:
            raise UserError(
                f"{folder}: patient {min(shared)} is in {bank} too; real slices must be of other patients "
                "than what was generated from, run the extraction again with other splits"
            )


def patients_of(bank: Path) -> set[str]:
    """The patients of a bank of nodules or slices, without reading its images.

    Raises:
        UserError: no such bank.
    """
    path = bank / RECORDS
    if not path.is_file():
        raise UserError(f"{bank}: no bank here; run the stage that makes it")
    return {entry["patient"] for entry in read_json(path)} - {""}
