from __future__ import annotations

import random
from pathlib import Path

import pytest

from common.data.samples import Sample
from common.data.splits import assign, read_splits, split_by_patient, write_splits
from common.errors import UserError


def made(sizes: dict[str, int], **fields: str) -> list[Sample]:
    return [
        Sample(Path(f"{patient}_{k}.png"), None, patient, **fields)  # type: ignore[arg-type]
        for patient, size in sizes.items()
        for k in range(size)
    ]


SET = made({f"p{k}": 5 + 3 * k for k in range(14)})


def patients(part: list[Sample]) -> set[str]:
    return {sample.patient for sample in part}


@pytest.mark.parametrize("seed", range(10))
def test_no_patient_is_in_two_splits(seed: int) -> None:
    splits = split_by_patient(SET, seed=seed)
    assert sum(len(patients(part)) for part in splits.values()) == 14
    assert sum(map(len, splits.values())) == len(SET)
    assert len(splits["train"]) / len(SET) == pytest.approx(0.7, abs=0.03)


def test_the_seed_decides_and_the_order_of_files_does_not() -> None:
    shuffled = random.Random(0).sample(SET, len(SET))
    first, again = split_by_patient(SET, seed=1), split_by_patient(shuffled, seed=1)
    assert {k: patients(v) for k, v in first.items()} == {k: patients(v) for k, v in again.items()}
    assert patients(split_by_patient(SET, seed=2)["test"]) != patients(first["test"])


def test_scans_of_one_person_stay_together() -> None:
    one = made({"scan1": 5, "scan2": 6}, person="somebody")
    for seed in range(8):
        splits = split_by_patient(one + SET, seed=seed)
        assert sum("scan1" in patients(p) for p in splits.values()) == 1
        assert all(("scan1" in patients(p)) == ("scan2" in patients(p)) for p in splits.values())


def test_each_site_is_spread_over_the_splits() -> None:
    sites = made({f"a{k}": 10 for k in range(10)}, site="a") + made(
        {f"b{k}": 10 for k in range(10)}, site="b"
    )
    for seed in range(5):
        splits = split_by_patient(sites, seed=seed)
        assert all({sample.site for sample in part} == {"a", "b"} for part in splits.values())


def test_groups_apart() -> None:
    doctor = made({"d1": 3, "d2": 1}, group="doctor")
    splits = split_by_patient(SET + doctor)
    assert patients(splits["doctor"]) == {"d1", "d2"} and len(splits["train"]) + len(splits["test"]) < len(
        SET
    )
    alone = split_by_patient(made({"d1": 3, "d2": 1, "d3": 1}, group="doctor"))
    assert "doctor" not in alone and all(alone.values())


def test_three_patients_are_enough_and_two_are_not() -> None:
    assert all(split_by_patient(made({"a": 100, "b": 1, "c": 1})).values())
    with pytest.raises(UserError, match="2 patients"):
        split_by_patient(made({"a": 4, "b": 4}))


def test_the_file_gives_the_same_splits(tmp_path: Path) -> None:
    splits = split_by_patient(SET + made({"d": 2}, group="doctor"))
    write_splits(tmp_path / "splits.json", splits)
    assert (
        assign([s for part in splits.values() for s in part], read_splits(tmp_path / "splits.json")) == splits
    )


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text('{"train": ["a"], "val": ["b"]}')
    with pytest.raises(UserError, match="train, val and test"):
        read_splits(path)
    path.write_text('{"train": ["a"], "val": ["b"], "test": ["a"]}')
    with pytest.raises(UserError, match="a is in two splits"):
        read_splits(path)
    with pytest.raises(UserError, match="p0 is in no split"):
        assign(SET, {"train": ["a"]})
