"""A trained model is evaluated on its own test patients, whoever came to the folder or left it since."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from common.data.splits import drawn
from common.files import read_json
from tests.bundles.conftest import Trained
from tests.bundles.pix2pix_covid.case import CASE
from tests.bundles.runs import Run, forked

arguments = CASE.arguments


@pytest.fixture
def changed(pairs: Path, trained: Trained, tmp_path: Path) -> Path:
    """The training's data without one training patient, with a new one that a split anew would test on."""
    data = tmp_path / "data"
    shutil.copytree(pairs, data)
    gone = splits(trained)["train"][0]
    new = next(name for name in (f"patient_{n}" for n in range(900, 999)) if drawn(name, 0) > 0.85)
    for part in ("images", "masks"):
        (data / part / f"{gone}.nii.gz").rename(data / part / f"{new}.nii.gz")
    return data


def splits(trained: Trained) -> dict[str, list[str]]:
    found = read_json(trained[0] / "models" / "model.json")["splits"]
    assert found == read_json(trained[0] / "models" / "split.json")["splits"]
    return dict(found)


def evaluated(folder: Path, log: Path, **settings: Path) -> Run:
    return forked(arguments("evaluating", "evaluate", output_dir=folder, **settings), log)


def test_one_patient_more_and_one_less(trained: Trained, changed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    done = evaluated(folder, tmp_path / "log", dataset_dir=changed)
    assert done.code == 0, done.err
    assert "1 patients are not in the model's split and left out, as patient_9" in done.out + done.err
    assert read_json(folder / "eval" / "metrics.json")["metrics"]["mae"]["n"] == 4
    own = {name: len(part) for name, part in splits(trained).items()}
    assert own == {"train": 5, "val": 2, "test": 1}
    assert "train 16 slices of 4 patients, val 8 slices of 2 patients, test 4 slices" in done.out + done.err


def test_training_patients_are_refused(trained: Trained, pairs: Path, changed: Path, tmp_path: Path) -> None:
    """Even one that is no longer in the training's folder."""
    gone, others = splits(trained)["train"][0], tmp_path / "others"
    for part in ("images", "masks"):
        (others / part).mkdir(parents=True)
        shutil.copy(pairs / part / f"{gone}.nii.gz", others / part)
    refused = evaluated(trained[0], tmp_path / "log", dataset_dir=changed, heldout_dir=others)
    assert f"{others}: patient {gone} is in the training split too" in refused.error


def test_a_run_is_resumed_with_its_own_patients_only(trained: Trained, pairs: Path, tmp_path: Path) -> None:
    """As many slices as before, of somebody else."""
    folder, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(trained[0], folder)
    shutil.copytree(pairs, data)
    gone = splits(trained)["train"][0]
    new = next(name for name in (f"patient_{n}" for n in range(900, 999)) if drawn(name, 0) < 0.7)
    for part in ("images", "masks"):
        (data / part / f"{gone}.nii.gz").rename(data / part / f"{new}.nii.gz")
    refused = forked(CASE.training(data, folder, max_epochs=3, resume=True), tmp_path / "log")
    assert f"split.json: patient {gone} was in train when the run began, no part now (2 such" in refused.error
