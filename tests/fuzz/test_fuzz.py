"""The fuzz run finds no fault: a few sets of each kind in `make test`, several hundred in `make test-all`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.damages import DAMAGES
from tests.fuzz.inputs import PATIENTS, chest
from tests.fuzz.readers import TARGETS, Slice, square
from tests.fuzz.run import CASES, LOWER, Case, compare, refusal_faults, run


def case_of(damage: str) -> Case:
    """Of lesion pairs as NIfTI files."""
    return Case(0, "pix2pix", damage, "nifti", "folders", PATIENTS[0])


def rightly() -> list[Slice]:
    """What a reader without faults gives."""
    return [
        Slice(square(scan.hu[:, :, z].T, LOWER), square(scan.label[:, :, z].T, 0) > 0, name, "train")
        for name, scan in ((name, chest(number)) for number, name in enumerate(PATIENTS))
        for z in range(scan.hu.shape[2])
    ]


def test_what_is_read_rightly_is_no_fault() -> None:
    assert compare(rightly(), case_of("nothing"), warned=False) == []


def test_a_mirror_an_offset_and_a_lost_slice_are_faults() -> None:
    slices = rightly()
    first, second, third, *rest = slices
    assert first.hu is not None and second.hu is not None and third.label is not None
    wrong = [
        dataclasses.replace(first, hu=first.hu[:, ::-1]),
        dataclasses.replace(second, hu=second.hu + 1024),
        dataclasses.replace(third, label=np.roll(third.label, 1, 0)),
    ]
    faults = compare([*wrong, *rest[:-1]], case_of("nothing"), warned=False)
    assert [fault.split(" x ")[1][:30] for fault in faults] == [
        "HU or places wrong (left-right",
        "HU or places wrong (1024 too h",
        "label differs in 24 pixels",
        "19 slices of 20 without a word",
    ]


def test_a_lost_slice_is_no_fault_after_a_warning() -> None:
    assert compare(rightly()[1:], case_of("links"), warned=True) == []


def test_a_patient_in_two_parts_is_a_fault() -> None:
    first, *rest = rightly()
    moved = dataclasses.replace(first, part="val")
    assert compare([moved, *rest], case_of("links"), False) == ["1 x a patient in two splits"]


def test_a_refusal_names_a_file_in_one_line(tmp_path: Path) -> None:
    assert refusal_faults(f"{tmp_path}/a.png: in colour; save it gray", tmp_path, fine=False) == []
    assert len(refusal_faults("in colour;\nsave it gray", tmp_path, fine=True)) == 3


def test_every_damage_meets_every_reader() -> None:
    drawn = [Case.drawn(n, np.random.default_rng(n)) for n in range(len(DAMAGES) * len(TARGETS))]
    assert {case.damage for case in drawn[:CASES]} == set(DAMAGES)
    assert {case.target for case in drawn[:CASES]} == set(TARGETS)
    assert len(drawn[:CASES]) >= 300


def test_no_faults_in_a_few_sets() -> None:
    assert run(range(19, CASES, 22)) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(DAMAGES)), ids=[name.replace(" ", "_") for name in DAMAGES])
def test_no_faults(number: int) -> None:
    assert run(range(number, CASES, len(DAMAGES))) == []
