from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from common.data.earlier_splits import earlier_split
from common.data.samples import Sample
from common.data.split_data import SplitData, keep_split, split_samples
from common.data.splits import RULE, split_by_patient, write_splits
from common.errors import UserError
from common.files import read_json, write_json


class Slices:
    """A part that only counts."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.dropped = samples, 0

    def __len__(self) -> int:
        return len(self.samples)


def samples(*patients: str) -> list[Sample]:
    return [Sample(Path(f"{patient}.png"), None, patient) for patient in patients]


@pytest.fixture
def data() -> SplitData[Slices]:
    made = SplitData[Slices]()
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
    with pytest.raises(UserError, match=r"splits\.json: missing, but the model was trained"):
        split_samples(tmp_path, found, (0.7, 0.15, 0.15), 0, trained={"split": {"rule": "splits.json"}})


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
    data = SplitData[Slices]()
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
    with pytest.raises(UserError, match=r"split\.json: patient b was in train .* test now \(2 so in all"):
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
