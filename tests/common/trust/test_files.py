from __future__ import annotations

from pathlib import Path

import numpy as np

from common.trust.files import data_set, found, image_files, name_of, spread
from common.trust.settings import ReadingSettings
from tests.common.trust.folders import dicom_series, pictures, volume

SETTINGS = ReadingSettings(32)


def test_images_at_any_depth_but_no_labels_sheets_or_hidden_files(tmp_path: Path) -> None:
    for folder in ("a/b", "labels", "a/masks", "alpha", ".hidden"):
        pictures(tmp_path / folder, 1, 0)
    for sheet in ("grid", "panel", "nearest"):
        pictures(tmp_path, 1, 0, sheet)
    assert image_files(tmp_path) == [tmp_path / "a" / "b" / "case0_000.png"]


def test_only_images_where_there_is_such_a_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "images", 2, 0)
    pictures(tmp_path / "other", 1, 1)
    records = found(tmp_path, None, SETTINGS)
    assert [name_of(record, tmp_path) for record in records] == [
        "images/case0_000.png",
        "images/case1_000.png",
    ]
    assert [record.patient for record in records] == ["case0", "case1"]


def test_drawn_nodules_have_their_alpha_as_label_half_of_it_and_more(tmp_path: Path) -> None:
    pictures(tmp_path / "samples" / "solid", 2, 0, "sample{0:06d}")
    pictures(tmp_path / "alpha" / "solid", 2, 1, "sample{0:06d}")
    records = found(tmp_path, None, ReadingSettings.of({"layer": "nodules"}))
    assert [name_of(record, tmp_path) for record in records] == [
        "samples/solid/sample000000.png",
        "samples/solid/sample000001.png",
    ]
    assert [record.mask for record in records] == sorted((tmp_path / "alpha" / "solid").iterdir())
    assert {record.mask_threshold for record in records} == {128}


def test_patients_that_show_the_same_are_one_person(tmp_path: Path) -> None:
    pictures(tmp_path / "covid", 3, 0)
    again = pictures(tmp_path / "covid", 1, 0, "other{0}_000")
    assert again.is_dir()
    samples = data_set(tmp_path, ReadingSettings(32, kind="images", fit="pad"))
    persons = {sample.patient: sample.unit for sample in samples}
    assert persons["case0"] == persons["other0"] != persons["case1"]
    assert len({sample.unit for sample in samples}) == 3


def test_the_central_slice_of_each_volume(tmp_path: Path) -> None:
    for name, depth in (("a", 5), ("b", 2)):
        volume(tmp_path / f"{name}.nii.gz", np.arange(8 * 8 * depth, dtype=np.int16).reshape(8, 8, depth))
    records = found(tmp_path, None, SETTINGS)
    assert len(spread(records, "auto")) == 7
    assert [sample.index for sample in spread(records, "central")] == [2, 1]
    own = ReadingSettings(32, patient_pattern="(?P<patient>.)")
    assert [record.patient for record in found(tmp_path, None, own)] == ["a", "b"]


def test_only_images_of_the_classes_that_the_model_learned(tmp_path: Path) -> None:
    pictures(tmp_path / "covid", 2, 0, "a{0}")
    pictures(tmp_path / "noncovid", 3, 1, "b{0}")
    learned = ReadingSettings.of({"fit": "pad", "classes": ["covid"]})
    assert [sample.category for sample in data_set(tmp_path, learned)] == ["covid", "covid"]
    assert len(data_set(tmp_path, ReadingSettings.of({"fit": "pad", "classes": ["covid", "noncovid"]}))) == 5
    assert len(data_set(tmp_path, ReadingSettings.of({"fit": "pad", "classes": ["elsewhere"]}))) == 5


def test_a_folder_with_one_dicom_series_is_one_image_of_the_patient_above_it(tmp_path: Path) -> None:
    for seed, patient in enumerate("AB"):
        dicom_series(tmp_path / "real" / patient / "CT", 3, seed)
    plain = ReadingSettings.of_any_generator(image_size=16)
    records = data_set(tmp_path / "real", plain)
    assert {record.image.name for record in records} == {"CT"}
    assert [record.patient for record in records] == ["A"] * 3 + ["B"] * 3
    assert [sample.index for sample in records] == [0, 1, 2] * 2


def test_dicom_files_of_several_series_in_one_folder_are_single_images(tmp_path: Path) -> None:
    for number in range(3):
        dicom_series(tmp_path, 1, number, f"drawn{number}")
    assert [file.name for file in image_files(tmp_path)] == [f"drawn{k}-0.dcm" for k in range(3)]
