from __future__ import annotations

import random
from pathlib import Path

import pytest

from common.data.earlier_splits import earlier_split
from common.data.samples import Sample
from common.data.splits import assign, drawn, held_out, read_splits, split_by_patient, write_splits
from common.errors import UserError
from common.metrics.bootstrap import FEWEST


def made(sizes: dict[str, int], **fields: str) -> list[Sample]:
    return [
        Sample(Path(f"{patient}_{k}.png"), None, patient, **fields)  # type: ignore[arg-type]
        for patient, size in sizes.items()
        for k in range(size)
    ]


EARLIER = {
    "train": ["case00", "case02", "case03", "case04", "case05", "case07", "case10", "case11"],
    "val": ["case01", "case09"],
    "test": ["case06", "case08"],
}
SET = made({f"p{k}": 5 + 3 * k for k in range(14)})


def patients(part: list[Sample]) -> set[str]:
    return {sample.patient for sample in part}


@pytest.mark.parametrize("seed", range(10))
def test_no_patient_is_in_two_splits(seed: int) -> None:
    splits = split_by_patient(SET, seed=seed)
    assert sum(len(patients(part)) for part in splits.values()) == 14
    assert sum(map(len, splits.values())) == len(SET) and all(splits.values())


def test_the_fractions_are_met_by_many_patients() -> None:
    splits = split_by_patient(made({f"p{k}": 1 for k in range(4000)}), (0.6, 0.3, 0.1), seed=3)
    shares = [len(splits[name]) / 4000 for name in ("train", "val", "test")]
    assert shares == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_a_patient_stays_in_its_part_whoever_comes_or_goes() -> None:
    before = {s.patient: name for name, part in split_by_patient(SET, seed=3).items() for s in part}
    for gone in range(14):
        for come in (0, 1, 7):
            sizes = {f"p{k}": 9 for k in range(14) if k != gone} | {f"new{k}": 4 for k in range(come)}
            splits = split_by_patient(made(sizes), seed=3)
            after = {s.patient: name for name, part in splits.items() for s in part}
            assert {name: after[name] for name in before if name in after} == {
                name: part for name, part in before.items() if name in after
            }


def test_no_part_is_empty_and_who_moves_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """Four patients that all draw train: those nearest to the other parts go there."""
    names = sorted((f"p{k}" for k in range(99) if drawn(f"p{k}", 0) < 0.7), key=lambda name: drawn(name, 0))
    chosen = [names[0], names[9], names[-9], names[-1]]
    splits = split_by_patient(made({name: 2 for name in chosen}))
    assert patients(splits["train"]) == set(chosen[:2])
    assert (patients(splits["val"]), patients(splits["test"])) == ({chosen[3]}, {chosen[2]})
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{chosen[3]} moves from train to val; patient {chosen[2]} moves from train to test" in line
    caplog.clear()
    few = [names[-1], names[-2], *(f"p{k}" for k in range(99) if drawn(f"p{k}", 0) > 0.85)][:6]
    splits = split_by_patient(made({name: 2 for name in few}), where="set")  # four of test
    assert [len(patients(splits[name])) for name in ("train", "val", "test")] == [3, 1, 2]
    assert caplog.text.count("set: patient ") == 1 and caplog.text.count("moves from test") == 2
    caplog.clear()
    split_by_patient(SET, seed=3)
    assert not caplog.records


def test_held_out_patients_stay_held_out() -> None:
    names = [f"p{k}" for k in range(40)]
    kept = held_out(names, 0.3, 1, "enhancer")
    assert 5 < len(kept) < 20 and kept == held_out(names[::-1], 0.3, 1, "enhancer")
    assert kept != held_out(names, 0.3, 1, "diagnosis")
    assert held_out([*names, "new"], 0.3, 1, "enhancer") in (kept, sorted([*kept, "new"]))
    assert held_out(names[:30], 0.3, 1, "enhancer") == [name for name in kept if name in names[:30]]
    assert len(held_out(["a", "b", "c"], 0.01, 0, "enhancer", least=2)) == 2
    assert len(held_out(["a", "b", "c"], 0.99, 0, "enhancer")) == 2 and held_out(["a"], 0.5, 0, "x") == []


def test_earlier_versions_drew_the_best_of_seeded_orders() -> None:
    """Twelve cases as version 0.1 split them at first: their models' test patients."""
    cases = made({f"case{k:02d}": 3 + k % 4 for k in range(12)})
    splits = earlier_split(cases, (0.7, 0.15, 0.15), 0)
    assert {name: sorted(patients(part)) for name, part in splits.items()} == EARLIER


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


def test_every_part_of_eighteen_patients_can_have_an_interval() -> None:
    """With fewer than three patients `common.metrics.bootstrap` gives none."""
    for seed in range(20):
        parts = split_by_patient([Sample(Path(f"p{k}.png"), None, f"p{k}") for k in range(18)], seed=seed)
        assert min(len(part) for part in parts.values()) >= FEWEST
