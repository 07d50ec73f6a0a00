from __future__ import annotations

from pathlib import Path

import pytest

from bundles.lung_two_stage.extraction.patients import parts_of
from common.data.samples import Sample
from common.errors import UserError


def scans(*patients: str) -> list[Sample]:
    return [Sample(Path(f"{name}_{n}.mhd"), None, name) for name in patients for n in range(2)]


@pytest.mark.parametrize(("count", "kept"), [(2, 1), (3, 2), (6, 2), (10, 4), (30, 10)])
def test_a_share_of_the_patients_is_kept_and_nobody_is_twice(count: int, kept: int) -> None:
    train, test = scans(*(f"p{n:02d}" for n in range(count))), scans("t1", "t2")
    patients = parts_of(train, test, 0.3, seed=0).patients()
    assert len(patients["enhancer"]) == kept and len(patients["generation"]) == count - kept
    assert not set(patients["generation"]) & set(patients["enhancer"]) and patients["test"] == ["t1", "t2"]


def test_the_choice_depends_on_the_seed_and_not_on_the_order() -> None:
    train = scans(*(f"p{n}" for n in range(12)))
    first, turned = (parts_of(given, [], 0.5, 0).patients() for given in (train, train[::-1]))
    assert first == turned and first != parts_of(train, [], 0.5, 1).patients()


def test_who_is_kept_stays_kept_when_others_come() -> None:
    before, after = (
        parts_of(scans(*(f"p{n:02d}" for n in range(count))), [], 0.3, seed=0).patients()
        for count in (20, 30)
    )
    assert set(before["enhancer"]) < set(after["enhancer"])
    assert set(before["generation"]) < set(after["generation"])


def test_scans_of_one_person_stay_together() -> None:
    train = [Sample(Path(f"{n}.mhd"), None, f"scan{n}", person=f"person{n // 3}") for n in range(12)]
    parts = parts_of(train, [], 0.5, 0)
    assert (len(parts.enhancer), len(parts.generation)) == (9, 3)
    assert not {s.person for s in parts.enhancer} & {s.person for s in parts.generation}


def test_refusals_are_one_line() -> None:
    with pytest.raises(UserError, match="at least 2 are needed"):
        parts_of(scans("a"), [], 0.3, 0)
    with pytest.raises(UserError, match="share_for_enhancer 1"):
        parts_of(scans("a", "b"), [], 1, 0)
