from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.intensity import Window
from common.data.labels import LabelSet
from common.data.samples import Sample
from common.errors import UserError
from common.trust.gather_sets import check_unseen
from common.trust.image_sets import (
    find_real_records,
    find_records,
    image_files,
    name_of,
    read_set,
    split_by_patient,
)
from common.trust.readers import ReadingSettings
from tests.common.trust import made
from tests.common.trust.folders import SIDE, dicom_series, pictures, shard, textures, volume
from tests.common.trust.made import a_set

SETTINGS_FILES = ReadingSettings(32)


def real_records(folder: Path, settings: ReadingSettings) -> list[Sample]:
    return find_real_records(folder, settings.kind, settings.patient_pattern, settings.info)


def test_images_at_any_depth_but_no_labels_sheets_or_hidden_files(tmp_path: Path) -> None:
    for folder in ("a/b", "labels", "a/masks", "alpha", ".hidden"):
        pictures(tmp_path / folder, 1, 0)
    for sheet in ("grid", "panel", "nearest"):
        pictures(tmp_path, 1, 0, sheet)
    assert image_files(tmp_path) == [tmp_path / "a" / "b" / "case0_000.png"]


def test_only_images_where_there_is_such_a_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "images", 2, 0)
    pictures(tmp_path / "other", 1, 1)
    records = find_records(tmp_path, None, SETTINGS_FILES.patient_pattern)
    assert [name_of(record, tmp_path) for record in records] == [
        "images/case0_000.png",
        "images/case1_000.png",
    ]
    assert [record.patient for record in records] == ["case0", "case1"]


def test_drawn_nodules_have_their_alpha_as_label_half_of_it_and_more(tmp_path: Path) -> None:
    pictures(tmp_path / "samples" / "solid", 2, 0, "sample{0:06d}")
    pictures(tmp_path / "alpha" / "solid", 2, 1, "sample{0:06d}")
    records = find_records(tmp_path, None, None)
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
    samples = real_records(tmp_path, ReadingSettings(32, kind="images", fit="pad"))
    persons = {sample.patient: sample.unit for sample in samples}
    assert persons["case0"] == persons["other0"] != persons["case1"]
    assert len({sample.unit for sample in samples}) == 3


def test_a_patient_pattern_of_the_users_own(tmp_path: Path) -> None:
    for name, depth in (("a", 5), ("b", 2)):
        volume(
            tmp_path / f"{name}.nii.gz", np.arange(8 * 8 * depth, dtype=np.int16).reshape(8, 8, depth) - 900
        )
    assert len(read_set(tmp_path, SETTINGS_FILES)) == 7
    own = ReadingSettings(32, patient_pattern="(?P<patient>.)")
    assert [record.patient for record in find_records(tmp_path, None, own.patient_pattern)] == ["a", "b"]


def test_only_images_of_the_classes_that_the_model_learned(tmp_path: Path) -> None:
    pictures(tmp_path / "covid", 2, 0, "a{0}")
    pictures(tmp_path / "noncovid", 3, 1, "b{0}")
    learned = ReadingSettings.of({"fit": "pad", "classes": ["covid"]})
    assert [sample.category for sample in real_records(tmp_path, learned)] == ["covid", "covid"]
    assert (
        len(real_records(tmp_path, ReadingSettings.of({"fit": "pad", "classes": ["covid", "noncovid"]}))) == 5
    )
    assert len(real_records(tmp_path, ReadingSettings.of({"fit": "pad", "classes": ["elsewhere"]}))) == 5


def test_a_folder_with_one_dicom_series_is_one_image_of_the_patient_above_it(tmp_path: Path) -> None:
    for seed, patient in enumerate("AB"):
        dicom_series(tmp_path / "real" / patient / "CT", 3, seed)
    plain = ReadingSettings.of_any_generator(image_size=16)
    records = real_records(tmp_path / "real", plain)
    assert {record.image.name for record in records} == {"CT"}
    assert [record.patient for record in records] == ["A"] * 3 + ["B"] * 3
    assert [sample.index for sample in records] == [0, 1, 2] * 2


def test_dicom_files_of_several_series_in_one_folder_are_single_images(tmp_path: Path) -> None:
    for number in range(3):
        dicom_series(tmp_path, 1, number, f"drawn{number}")
    assert [file.name for file in image_files(tmp_path)] == [f"drawn{k}-0.dcm" for k in range(3)]


SMALL = ReadingSettings(image_size=SIDE)


def test_pictures_as_the_network_sees_them(tmp_path: Path) -> None:
    found = read_set(pictures(tmp_path, 3, 0), SMALL)
    expected = textures(3, 0).astype(np.float32) / 255 * 2 - 1
    assert found.images.shape == (3, 1, SIDE, SIDE) and found.images.dtype == torch.float32
    np.testing.assert_allclose(found.images[:, 0].numpy(), expected, atol=1e-6)
    assert list(found.names) == ["case0_000.png", "case1_000.png", "case2_000.png"]
    assert found.folder == str(tmp_path) and found.labels is None and found.structures == ()


def test_real_images_have_patients_and_synthetic_ones_are_their_own(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "deep", 2, 0, "case7_{0}")
    pictures(tmp_path / "b", 2, 1, "case8_{0}")
    pictures(tmp_path / "b", 1, 9, "grid")
    real, made = read_set(tmp_path, SMALL), read_set(tmp_path, SMALL, synthetic=True)
    assert list(real.patients) == ["case7", "case7", "case8", "case8"]
    assert list(made.patients) == list(made.names) == list(real.names)


def test_masks_in_the_folder_and_in_another(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "images", 3, 0)
    for place, side in enumerate((4, 8, 0)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:side, :side] = 255
        for folder in ("set/masks", "conditions"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / folder / f"case{place}_000.png")
    found = read_set(tmp_path / "set", SMALL)
    assert found.labels is not None and found.labels.sum((1, 2, 3)).tolist() == [16, 64]
    assert found.structures == ("lesion",) and len(found) == 2  # the third shows no lesion
    pictures(tmp_path / "made", 1, 5, "case1_000_variant02")
    pictures(tmp_path / "made", 1, 6, "case0_000")
    beside = read_set(tmp_path / "made", SMALL, tmp_path / "conditions", synthetic=True)
    assert beside.labels is not None and beside.labels.sum((1, 2, 3)).tolist() == [16, 64]


def test_volumes_give_their_labelled_slices_or_all(tmp_path: Path) -> None:
    hu = (textures(5, 0).astype(np.int16) * 5 - 1000).transpose(1, 2, 0)
    mask = np.zeros_like(hu, dtype=np.uint8)
    mask[2:6, 3:9, 1:3] = 1
    volume(tmp_path / "images" / "p1.nii.gz", hu)
    volume(tmp_path / "masks" / "p1.nii.gz", mask)
    window = Window(-1000, 275)
    labelled = read_set(tmp_path, ReadingSettings(SIDE, window))
    np.testing.assert_allclose(labelled.images[:, 0].numpy(), textures(5, 0)[1:3] / 127.5 - 1, atol=1e-5)
    assert list(labelled.names) == ["images/p1.nii.gz#001", "images/p1.nii.gz#002"]
    assert len(read_set(tmp_path, ReadingSettings(SIDE, window, empty_labels=True))) == 5


def test_shards_with_masks_and_patients(tmp_path: Path) -> None:
    hu = textures(3, 0).astype(np.int16) * 5 - 1000
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4, 5:9] = 2
    lungs = ["p1", "p2", "p1"]
    samples = {
        f"{place:09d}": {"image.npy": image, "mask.npy": mask, "json": {"normal": {"patient": lung}}}
        for place, (image, lung) in enumerate(zip(hu, lungs, strict=True))
    }
    shard(tmp_path / "000000.tar", samples)
    found = read_set(tmp_path, ReadingSettings(SIDE, Window(-1000, 275)))
    np.testing.assert_allclose(found.images[:, 0].numpy(), textures(3, 0) / 127.5 - 1, atol=1e-5)
    assert list(found.patients) == lungs and found.names[2] == "000000.tar#000000002"
    assert found.labels is not None and found.labels.sum((1, 2, 3)).tolist() == [4, 4, 4]
    assert list(read_set(tmp_path, SMALL, synthetic=True).patients) != lungs


def test_label_maps_go_through_the_store(tmp_path: Path) -> None:
    hu = (textures(4, 0).astype(np.int16) * 3 - 200).transpose(1, 2, 0)
    label = np.zeros_like(hu, dtype=np.uint8)
    label[2:6, 3:9, 1:4], label[10:12, 3:9, 2] = 1, 5
    volume(tmp_path / "images" / "p1.nii.gz", hu)
    volume(tmp_path / "labels" / "p1.nii.gz", label)
    info = {
        "image_size": SIDE,
        "intensity": {"kind": "window", "lower": -200, "upper": 565},
        "label_set": LabelSet().state(),
    }
    found = read_set(tmp_path, ReadingSettings.of(info))
    np.testing.assert_allclose(found.images[:, 0].numpy(), textures(4, 0)[1:] / 127.5 - 1, atol=1e-4)
    assert found.labels is not None and found.structures[:2] == ("LV", "RV")
    assert [sorted(part.unique().tolist()) for part in found.labels] == [[0, 1], [0, 1, 5], [0, 1]]
    alone = read_set(tmp_path / "images", ReadingSettings.of(info), synthetic=True)
    assert len(alone) == 4 and alone.labels is None


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: no such folder"):
        read_set(tmp_path / "missing", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images found"):
        read_set(tmp_path / "empty", SMALL)
    with pytest.raises(UserError, match="one: holds 1 image; at least 2"):
        read_set(pictures(tmp_path / "one", 1, 0), SMALL, synthetic=True)
    folder = pictures(tmp_path / "cut", 2, 0)
    (folder / "case1_000.png").write_bytes((folder / "case1_000.png").read_bytes()[:90])
    with pytest.raises(UserError, match=r"case1_000.png: cannot be read"):
        read_set(folder, SMALL, synthetic=True)
    values = textures(2, 0).astype(np.float32) / 255
    values[1, 3, 4] = np.nan
    (tmp_path / "nan").mkdir()
    np.save(tmp_path / "nan" / "made.npy", values)
    with pytest.raises(UserError, match=r"made.npy#000001: holds NaN"):
        read_set(tmp_path / "nan", SMALL)
    with pytest.raises(UserError, match=r"no label of that name in"):
        read_set(pictures(tmp_path / "two", 2, 0), SMALL, tmp_path / "nan")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000000.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"000000.tar: cannot be read"):
        read_set(tmp_path / "shards", SMALL)


def test_halves_of_different_patients() -> None:
    real = a_set(made.pictures(20, 0), "real", [f"p{place // 4}" for place in range(20)])
    here, there = split_by_patient(real, 3)
    assert not set(here.patients) & set(there.patients) and len(here) + len(there) == 20
    assert 8 <= len(here) <= 12
    turned = real.select(range(19, -1, -1))
    assert set(split_by_patient(turned, 3)[0].patients) == set(here.patients)
    splits = {frozenset(split_by_patient(real, seed)[0].patients) for seed in range(8)}
    assert len(splits) > 1


def test_held_out_patients_of_the_training_are_refused() -> None:
    heldout = a_set(made.pictures(3, 0), "other", ["a", "b", "c"])
    check_unseen(heldout, {"train": ["d"], "val": ["e"], "test": ["b"]})
    check_unseen(heldout, {})
    for train, found in ((["c", "b"], "b"), (["scan2"], "scan2")):
        scans = replace(heldout, scans=["a", "b", "scan2"]) if found == "scan2" else heldout
        told = f"other: patient {found} is held out, but the model was trained or chosen on it"
        for part in ("train", "val"):
            with pytest.raises(UserError, match=told):
                check_unseen(scans, {part: train})


def test_the_models_own_training_patients_decide() -> None:
    real = a_set(made.pictures(6, 0), "real", ["a", "a", "b", "c", "c", "d"])
    here, there = split_by_patient(real, training=["b", "c", "elsewhere"])
    assert list(here.patients) == ["b", "c", "c"] and list(there.patients) == ["a", "a", "d"]
    persons = replace(real, scans=["a1", "a2", "b", "c", "c", "d"])
    assert list(split_by_patient(persons, training=["a2"])[0].names) == ["real_000.png", "real_001.png"]
    with pytest.raises(UserError, match="real: 4 patients, none of them among the model's training"):
        split_by_patient(real, training=["x"])
    with pytest.raises(UserError, match="real: 1 patients, which cannot be split"):
        split_by_patient(a_set(made.pictures(2, 0), "real", ["a", "a"]))


def test_chosen_images_keep_what_belongs_to_them() -> None:
    labels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 32, 32)
    real = replace(a_set(made.pictures(4, 0), "real"), labels=labels, structures=("x",), scans=list("abcd"))
    taken = real.select([3, 1])
    assert taken.labels is not None and taken.labels[:, 0, 0, 0].tolist() == [3, 1]
    assert list(taken.scans) == ["d", "b"] and taken.folder == "real" and taken.structures == ("x",)
