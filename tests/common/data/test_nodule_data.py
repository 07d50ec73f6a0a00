from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.nodule_data import NoduleData
from common.errors import UserError
from tests.common.data.made_scans import write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Crops: 10 patients with two nodules each."""
    random = np.random.default_rng(0)
    mask = np.zeros((12, 12))
    mask[4:8, 5:9] = 1
    for patient in range(10):
        for nodule in range(2):
            picture = random.integers(0, 256, (12, 12))
            write_picture(tmp_path / "set", f"LIDC-IDRI-{patient:04d}_nodule-{nodule}", picture, mask)
    return tmp_path / "set"


def test_patients_are_split_and_scans_read(folder: Path) -> None:
    data = NoduleData(folder, 12, augment={"flip": 0.5}, parts=["train", "val"])
    patients = data.patients()
    assert sum(map(len, patients.values())) == 10 and min(map(len, patients.values())) >= 1
    assert not set(patients["train"]) & {*patients["val"], *patients["test"]}
    assert set(data.datasets) == {"train", "val"} and len(data.train) == 2 * len(patients["train"])
    assert data.train.augment is not None and data.val.augment is None
    scans = list(data.scans("test"))
    assert {scan.patient for scan in scans} == set(patients["test"]) and len(list(data.scans("test", 1))) == 1
    assert scans[0].hu.shape == (1, 12, 12)
    assert "train slices: " in data.summary()
    info = data.metadata()
    assert info["window_hu"] == [-1000, 400] and info["nominal_hu"] is True and info["splits"] == patients


def test_the_split_is_that_of_its_seed(folder: Path) -> None:
    first = NoduleData(folder, parts=[])
    assert first.patients() == NoduleData(folder, seed=5, image_size=32, parts=[]).patients()
    assert first.patients() != NoduleData(folder, split_seed=1, parts=[]).patients()


def test_other_folders_must_hold_other_patients(folder: Path, tmp_path: Path) -> None:
    data = NoduleData(folder, parts=[])
    write_picture(tmp_path / "b", "LIDC-IDRI-0099_nodule-0", np.eye(8), np.eye(8))
    assert [record.patient for record in data.others(tmp_path / "b")] == ["LIDC-IDRI-0099"]
    with pytest.raises(UserError, match="is in the training split too"):
        data.others(folder)


@pytest.mark.realdata
def test_shared_crops_are_split_by_patient(shared_data: Path) -> None:
    data = NoduleData(shared_data / "nodule_slices", parts=[])
    patients = data.patients()
    assert {name: len(part) for name, part in patients.items()} == {"train": 359, "val": 82, "test": 85}
    assert len(set().union(*patients.values())) == 526
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 628, "val": 146, "test": 147}
