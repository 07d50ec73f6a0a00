from __future__ import annotations

from pathlib import Path

import pytest

from common.data.samples import Sample
from common.data.split_data import SplitData, split_samples
from common.data.splits import write_splits
from common.errors import UserError


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
