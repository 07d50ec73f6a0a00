from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.data.samples import Sample
from common.data.splits import (
    RULE,
    SplitData,
    assign,
    drawn,
    earlier_split,
    held_out,
    keep_split,
    read_splits,
    split_by_patient,
    split_samples,
    write_splits,
)
from common.errors import UserError
from common.files import read_json, write_json
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


class Slices:
    """A part that only counts."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.dropped = samples, 0

    def __len__(self) -> int:
        return len(self.samples)


def samples(*patients: str) -> list[Sample]:
    return [Sample(Path(f"{patient}.png"), None, patient) for patient in patients]


class OfSlices(SplitData[Slices]):
    def metadata(self) -> dict[str, Any]:
        return {"splits": self.patients()}


@pytest.fixture
def data() -> SplitData[Slices]:
    made = OfSlices()
    made.dataset_dir = Path("set")
    made.splits = {"train": samples("b", "a", "a"), "val": samples("c"), "doctor": samples("d")}
    made.datasets = {name: Slices(part) for name, part in made.splits.items() if name != "val"}
    return made


def test_parts_by_name(data: SplitData[Slices]) -> None:
    assert len(data.train) == 3 and list(data.apart) == ["doctor"]
    assert data.counts() == "train 3 slices of 2 patients, doctor 1 slices of 1 patients"
    assert data.patients() == {"train": ["a", "b"], "val": ["c"], "doctor": ["d"]}
    with pytest.raises(UserError, match="no split 'val' was loaded; there is train, doctor"):
        _ = data.val


def test_training_patients_are_refused(data: SplitData[Slices]) -> None:
    data.refuse_training_patients(samples("c", "x"), "other")
    with pytest.raises(UserError, match="other: patient b is in the training split too"):
        data.refuse_training_patients(samples("x", "b"), "other")


def test_the_table_of_the_folder_comes_first(tmp_path: Path) -> None:
    found = samples("a", "b", "c")
    assert {len(part) for part in split_samples(tmp_path, found, (0.4, 0.3, 0.3), 0).values()} == {1}
    with pytest.raises(UserError, match="three numbers"):
        split_samples(tmp_path, found, (0.5, 0.5), 0)
    table = {"train": found[:1], "val": found[2:], "test": found[1:2]}
    write_splits(tmp_path / "splits.json", table)
    assert split_samples(tmp_path, found, (), 7) == table


def names(parts: dict[str, list[Sample]]) -> dict[str, list[str]]:
    return {name: [sample.patient for sample in part] for name, part in parts.items()}


OWN = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def test_a_trained_models_own_split_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One patient more, one less, another seed: nobody else is tested on."""
    info = {"splits": OWN, "split": {"rule": "hash 1", "seed": 3, "fractions": [0.5, 0.25, 0.25]}}
    found = samples("a", "c", "d", "x")
    assert names(split_samples(tmp_path, found, (0.4, 0.3, 0.3), 9, trained=info)) == {
        "train": ["a"], "val": ["c"], "test": ["d"],
    }  # fmt: skip
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{tmp_path}: 1 patients are not in the model's split and left out, as x;")
    for gone, part in (("a", "train"), ("d", "test")):
        rest = [sample for sample in found if sample.patient not in (gone, "b")]
        with pytest.raises(UserError, match=f"no {part} patient of the model's own split; .*--heldout_dir"):
            split_samples(tmp_path, rest, (), 0, trained=info)


def test_who_is_one_person_with_a_training_patient_is_not_tested_on(tmp_path: Path) -> None:
    joined = [replace(sample, person="a") for sample in samples("a", "d")]
    found = [*joined, *samples("e")]
    one = [replace(sample, person="c") for sample in samples("c", "d")]  # chosen on
    kept = split_samples(
        tmp_path, [*samples("a", "e"), *one], (), 0, trained={"splits": {**OWN, "test": ["d", "e"]}}
    )
    assert names(kept) == {"train": ["a"], "val": ["c"], "test": ["e"]}
    parts = split_samples(tmp_path, found, (), 0, trained={"splits": {**OWN, "test": ["d", "e"]}})
    assert names(parts) == {"train": ["a"], "val": [], "test": ["e"]}


def test_a_model_without_names_is_split_by_its_rule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = samples(*"abcdefghijkl")
    rule = {"rule": RULE, "seed": 3, "fractions": [0.5, 0.25, 0.25]}
    parts = split_samples(tmp_path, found, (0.7, 0.15, 0.15), 0, trained={"split": rule})
    assert parts == split_by_patient(found, (0.5, 0.25, 0.25), 3)
    assert parts != split_by_patient(found, (0.7, 0.15, 0.15), 0)
    assert "split by its rule again" in caplog.text
    old = split_samples(tmp_path, found, (0.7, 0.15, 0.15), 0, trained={})
    assert old == earlier_split(found, (0.7, 0.15, 0.15), 0) and "earlier versions" in caplog.text
    table = split_samples(tmp_path, found, (0.7, 0.15, 0.15), 0, trained={"split": {"rule": "splits.json"}})
    assert table == split_by_patient(found, (0.7, 0.15, 0.15), 0)
    assert "split by a table and names no patients of its training, who cannot be told" in caplog.text


def test_the_folders_table_must_test_on_nobody_of_the_training(tmp_path: Path) -> None:
    found = samples("a", "b", "c", "d", "e")
    table = {"train": found[:2], "val": found[2:4], "test": found[4:]}  # d was a test patient
    write_splits(tmp_path / "splits.json", table)
    assert split_samples(tmp_path, found, (), 0, trained={"splits": OWN}) == table
    write_splits(tmp_path / "splits.json", {"train": found[:1], "val": found[3:], "test": found[1:3]})
    with pytest.raises(
        UserError, match=r"splits\.json: patient b is not in train, but the model was trained"
    ):
        split_samples(tmp_path, found, (), 0, trained={"splits": OWN})
    write_splits(tmp_path / "splits.json", {"train": found[:2], "val": found[3:], "test": found[2:3]})
    with pytest.raises(UserError, match=r"patient c is not in train or val, but the model was chosen on it"):
        split_samples(tmp_path, found, (), 0, trained={"splits": OWN})


def test_a_rule_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="was split by 'hash 999', which this version does not know"):
        split_samples(
            tmp_path, samples("a", "b", "c"), (0.7, 0.15, 0.15), 0, trained={"split": {"rule": "hash 999"}}
        )


def test_patients_that_only_the_model_knows_are_refused_too(tmp_path: Path) -> None:
    data = OfSlices()
    data.dataset_dir = tmp_path
    data.splits = data.split_by(samples("a", "c", "d"), (), 0, trained={"splits": OWN})
    for known in ("b", "c"):  # trained with, though it is gone; chosen on
        with pytest.raises(UserError, match=f"other: patient {known} is in the training split"):
            data.refuse_training_patients(samples("x", known), "other")
    data.refuse_training_patients(samples("x", "d"), "other")


def test_a_run_keeps_its_split(tmp_path: Path) -> None:
    facts = {"splits": OWN, "split": {"rule": RULE, "seed": 0}, "image_size": 8}
    keep_split(tmp_path / "models", facts)
    kept = read_json(tmp_path / "models" / "split.json")
    assert kept == {"splits": OWN, "split": {"rule": RULE, "seed": 0}}
    keep_split(tmp_path / "models", facts, resume=True)
    moved = {**facts, "splits": {"train": ["a", "d"], "val": ["c"], "test": ["b"]}}
    with pytest.raises(UserError, match=r"split\.json: patient b was in train .* test now \(2 such patients"):
        keep_split(tmp_path / "models", moved, resume=True)
    with pytest.raises(UserError, match=r"patient e was in no part when .* train now"):
        keep_split(tmp_path / "models", {"splits": {**OWN, "train": ["a", "b", "e"]}}, resume=True)
    assert read_json(tmp_path / "models" / "split.json") == kept
    keep_split(tmp_path / "models", moved)  # another run
    assert read_json(tmp_path / "models" / "split.json")["splits"] == moved["splits"]


def test_a_run_of_an_earlier_version_has_its_split_beside_the_model(tmp_path: Path) -> None:
    write_json(tmp_path / "model.json", {"splits": OWN, "score": 1.0})
    with pytest.raises(UserError, match=r"model\.json: patient c was in val when the run began"):
        keep_split(tmp_path, {"splits": {"train": ["a", "b", "c"], "val": ["d"], "test": []}}, resume=True)
    keep_split(tmp_path, {"splits": OWN}, resume=True)
    assert read_json(tmp_path / "split.json") == {"splits": OWN}
