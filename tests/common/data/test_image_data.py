from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.image_data import ImageData
from common.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """``ill`` with eight papers of three slices, ``well`` with four slices of sources unknown."""
    random = np.random.default_rng(0)
    for paper in range(8):
        for number in range(3):
            path = tmp_path / "set" / "ill" / f"paper{paper}-p{number}-1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (20, 14), dtype=np.uint8)).save(path)
    (tmp_path / "set" / "well").mkdir()
    for number in range(4):
        picture = random.integers(0, 255, (14, 20), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "set" / "well" / f"{number}.png")
    return tmp_path / "set"


def test_splits_by_paper_and_doubled_training(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = ImageData(folder, 16, flips=True)
    assert data.class_names == ["ill", "well"]
    parts = [{sample.patient for sample in part} for part in data.splits.values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 12
    assert sum(map(len, data.splits.values())) == 28
    assert len(data.train) == 2 * len(data.splits["train"]) and len(data.val) == len(data.splits["val"])
    assert "(train with its flips); train has" in caplog.text and "well" in caplog.text
    assert len(ImageData(folder, 16).train) == len(data.splits["train"])  # mirrored anatomy is asked for


def test_the_split_does_not_depend_on_the_classes(folder: Path) -> None:
    whole, ill = ImageData(folder, 16), ImageData(folder, 16, classes="ill")
    assert ill.class_names == ["ill"] and ill.summary().endswith("; class ill")
    for name, part in ill.splits.items():
        assert part == [sample for sample in whole.splits[name] if sample.category == "ill"]
    assert ImageData(folder, 16, classes="well,ill").train[0]["class"] == 1
    assert ImageData(folder, 16, split_seed=3).splits != whole.splits


def test_metadata_is_json_and_prepares_alike(folder: Path) -> None:
    data = ImageData(folder, 16, standardise="histogram", fit="crop", classes=["well", "ill"])
    said = json.loads(json.dumps(data.metadata()))
    assert said["classes"] == ["well", "ill"] and said["fit"] == "crop" and said["flips"] is False
    assert said["nominal_hu"] is True and said["image_size"] == 16
    assert said["slices"]["train"] == len(data.train)
    given = {"classes": said["classes"], "fit": said["fit"], "standardiser_state": said["standardiser"]}
    again = ImageData(folder, 16, parts=["test"], **given)
    assert list(again.datasets) == ["test"] and np.array_equal(again.test.images, data.test.images)


def test_another_folder_is_prepared_alike_and_must_hold_other_patients(folder: Path, tmp_path: Path) -> None:
    data = ImageData(folder, 16, classes="ill")
    with pytest.raises(UserError, match="is in the training split too"):
        data.whole(folder)
    other = tmp_path / "other" / "ill"
    other.mkdir(parents=True)
    for file in (folder / "ill").glob("paper0-*.png"):
        (other / file.name.replace("paper0", "q")).write_bytes(file.read_bytes())
    held = data.whole(tmp_path / "other")
    assert [sample.patient for sample in held.samples] == ["q"] * 3 and len(held) == 3
    (tmp_path / "other" / "ill").rename(tmp_path / "other" / "well")
    with pytest.raises(UserError, match="no class ill; there is well"):
        data.whole(tmp_path / "other")


def test_bad_settings(folder: Path) -> None:
    with pytest.raises(UserError, match="no class severe; there is ill, well"):
        ImageData(folder, 16, classes="severe")
    with pytest.raises(UserError, match="fit 'x' is unknown"):
        ImageData(folder, 16, fit="x")
    with pytest.raises(UserError, match="standardise 'x' is unknown"):
        ImageData(folder, 16, standardise="x")
    with pytest.raises(UserError, match="cannot be split into train, val and test"):
        ImageData(folder, 16, patient_pattern="()")


@pytest.mark.realdata
def test_shared_covid_ct(shared_data: Path) -> None:
    data = ImageData(shared_data / "covid_ct", 32)
    assert data.class_names == ["covid"] and sum(map(len, data.splits.values())) == 289
    units = [{sample.unit for sample in part} for part in data.splits.values()]
    assert sum(map(len, units)) == len(set.union(*units))
    assert 0.6 < len(data.splits["train"]) / 289 < 0.8
