from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.datamodules import NoduleData, StructureData
from common.data.datasets import SliceDataset
from common.data.layouts import find_samples
from common.data.loaders import SampleIndex
from common.data.splits import split_by_patient, write_splits
from common.errors import UserError
from common.files import write_json
from common.tools.package import shared_bytes
from tests.common.data.made_sets import image_data, light, mirror, pair_data, pair_dataset, structure_data
from tests.common.data.made_volumes import heart_label, save_volume, write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six patients of four slices (24 x 20): a lesion wherever the slice number is not 3."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for patient in range(6):
        for number in range(4):
            mask = np.zeros((24, 20), np.uint8)
            mask[2:8, 2:6] = 255 * (number != 3)
            image = random.integers(0, 40, mask.shape, dtype=np.uint8) + np.uint8(150) * (mask > 0)
            Image.fromarray(image).save(tmp_path / "images" / f"p{patient}_{number}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / f"p{patient}_{number}.png")
    return tmp_path


def test_splits_shapes_and_ranges(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = pair_data(folder, 16, standardise="landmarks")
    assert len(data.train) + len(data.val) + len(data.test) == 18 and "dropped 6 slices" in caplog.text
    item = data.train[0]
    assert item["image"].shape == item["label"].shape == (1, 16, 16) and item["image"].dtype == torch.float32
    assert -1 <= item["image"].min() < item["image"].max() <= 1
    assert set(item["label"].unique().tolist()) == {0.0, 1.0} and item["sample"] == 0
    assert data.apart == {} and data.train.samples[0].patient not in {s.patient for s in data.test.samples}


def test_image_and_mask_stay_registered(folder: Path) -> None:
    dataset = pair_dataset(find_samples(folder), 24, augmentation=[mirror(), light(24)], seed=5)
    for visit in (0, SampleIndex(0, 2)):
        image, label = dataset[visit]["image"][0], dataset[visit]["label"][0]
        assert image[label > 0].mean() - image[label == 0].mean() > 0.9
    assert (
        dataset[SampleIndex(0, 2)]["label"][0, :, 12:].sum()
        > dataset[SampleIndex(0, 2)]["label"][0, :, :12].sum()
    )


def test_metadata_is_json_and_rebuilds_the_look(folder: Path) -> None:
    data = pair_data(folder, 16, standardise="histogram", window=[-1350, 150])
    metadata = json.loads(json.dumps(data.metadata()))
    assert metadata["nominal_hu"] is True and metadata["window_hu"] == [-1350, 150]
    again = pair_data(folder, 16, window=[-1350, 150], parts=("test",), state=metadata["standardiser"])
    assert list(again.datasets) == ["test"] and np.array_equal(again.test.images, data.test.images)


def test_keeping_and_dropping_empty_masks(folder: Path) -> None:
    samples = find_samples(folder)
    assert len(pair_dataset(samples, 16)) == 24
    assert len(pair_dataset(samples, 16, empty_masks="drop")) == 18
    with pytest.raises(UserError, match="no slices left"):
        pair_dataset([s for s in samples if s.name.endswith("_3")], 16, empty_masks="drop")
    with pytest.raises(UserError, match="keep or drop"):
        pair_dataset(samples, 16, empty_masks="remove")


def test_the_folders_own_splits_are_used(folder: Path) -> None:
    splits = split_by_patient(find_samples(folder), seed=77)
    write_splits(folder / "splits.json", splits)
    assert pair_data(folder, 8, split_seed=1).splits == splits


def test_hu_volumes_are_not_standardised(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for patient in "abc":
        image = random.integers(-1000, 200, (9, 10, 2)).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "images" / f"{patient}.nii.gz")
        nib.save(
            nib.Nifti1Image(np.ones((9, 10, 2), np.uint8), np.eye(4)),
            tmp_path / "masks" / f"{patient}.nii.gz",
        )
    plain, landmarks = (pair_data(tmp_path, 8, standardise=how) for how in ("none", "landmarks"))
    assert np.array_equal(plain.train.images, landmarks.train.images)
    assert landmarks.metadata()["nominal_hu"] is False


def test_auto_augments_small_training_sets_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((1000, "auto", True), (3, "auto", False), (3, "light", True), (1000, "none", False))
    for few, augment, changed in cases:
        monkeypatch.setattr("common.data.transforms.FEW", few)
        data = pair_data(folder, 8, augmentation=mirror(), augment=augment)
        assert changed != torch.equal(data.train[SampleIndex(0, 0)]["image"], data.train[0]["image"])
        assert torch.equal(data.val[SampleIndex(0, 0)]["image"], data.val[0]["image"])
    with pytest.raises(UserError, match="augment 'strong' is unknown; choose auto, light or none"):
        pair_data(folder, 8, augment="strong")


def test_slices_keep_their_shape_in_the_square(folder: Path) -> None:
    """Slices of 24 x 20 pixels with a lesion of 6 x 4."""
    extents, metadata = {}, {}
    for fit in ("pad", "stretch"):
        data = pair_data(folder, 48, fit=fit)
        rows, columns = np.nonzero(data.train.labels[0, 0])
        extents[fit], metadata[fit] = (np.ptp(rows) + 1, np.ptp(columns) + 1), data.metadata()
        image = data.train.images[0, 0]
        assert (image[:, :4] == -1).all() == (image[:, 44:] == -1).all() == (fit == "pad")
    assert extents == {"pad": (12, 8), "stretch": (12, 9)}
    assert metadata["pad"]["fit"] == "pad" and metadata["stretch"]["fit"] == "stretch"
    assert metadata["pad"]["empty_masks"] == "drop"


def test_the_noise_of_an_item_goes_by_its_name(folder: Path) -> None:
    dataset = pair_dataset(find_samples(folder), 8)
    keys = [dataset[index]["noise_key"] for index in range(len(dataset))]
    assert len(set(keys)) == len(keys) and np.isnan(dataset[0]["noise_mm"])
    assert pair_dataset(find_samples(folder)[3:4], 8)[0]["noise_key"] == keys[3]
    assert "noise_key" not in dataset[SampleIndex(3, 0)]  # training draws it anew at each visit


def test_another_folder_is_prepared_alike_and_must_hold_other_patients(folder: Path) -> None:
    data = pair_data(folder, 8)
    with pytest.raises(UserError, match="is in the training split too"):
        data.from_folder(folder)
    other = folder / "other"
    for kind in ("images", "masks"):
        (other / kind).mkdir(parents=True)
        for file in (folder / kind).glob("p0_*.png"):
            (other / kind / file.name.replace("p0", "q0")).write_bytes(file.read_bytes())
    held = data.from_folder(other)
    assert [sample.patient for sample in held.samples] == ["q0"] * 3  # the slice without lesion is dropped
    original = pair_dataset([s for s in find_samples(folder) if s.patient == "p0"], 8, empty_masks="drop")
    assert np.array_equal(held.images, original.images)


@pytest.mark.realdata
def test_shared_covid_slices(shared_data: Path) -> None:
    samples = find_samples(shared_data / "covid_lesions")
    groups = {name: [s for s in samples if s.group == name] for name in ("doctor", "pseudo")}
    assert len(groups["doctor"]) == 50 and len(groups["pseudo"]) == 800
    assert len({s.patient for s in groups["pseudo"]}) == 20 and len({s.name for s in samples}) == 850
    data = pair_data(shared_data / "covid_lesions", 64, standardise="landmarks")
    parts = [{s.unit for s in part} for part in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) and len(data.apart["doctor"]) == 50
    # The mean of a scan's bright fifth varied fourfold before; all scans now agree.
    bright = [np.percentile(image, 80) for image in data.test.images]
    assert np.std(bright) < 0.05


@pytest.fixture
def folder_image_data(tmp_path: Path) -> Path:
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


def test_splits_by_paper_and_doubled_training(
    folder_image_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        data = image_data(folder_image_data, 16, flips=True)
    assert data.class_names == ["ill", "well"]
    parts = [{sample.patient for sample in part} for part in data.splits.values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 12
    assert sum(map(len, data.splits.values())) == 28
    assert len(data.train) == 2 * len(data.splits["train"]) and len(data.val) == len(data.splits["val"])
    assert "(train with its flips); train has" in caplog.text and "well" in caplog.text
    assert len(image_data(folder_image_data, 16).train) == len(
        data.splits["train"]
    )  # mirrored anatomy is asked for


def test_the_split_does_not_depend_on_the_classes(folder_image_data: Path) -> None:
    whole, ill = image_data(folder_image_data, 16), image_data(folder_image_data, 16, classes="ill")
    assert ill.class_names == ["ill"] and ill.summary().endswith("; class ill")
    for name, part in ill.splits.items():
        assert part == [sample for sample in whole.splits[name] if sample.category == "ill"]
    assert image_data(folder_image_data, 16, classes="well,ill").train[0]["class"] == 1
    assert image_data(folder_image_data, 16, split_seed=3).splits != whole.splits


def test_metadata_is_json_and_prepares_alike(folder_image_data: Path) -> None:
    data = image_data(folder_image_data, 16, standardise="histogram", fit="crop", classes=["well", "ill"])
    said = json.loads(json.dumps(data.metadata()))
    assert said["classes"] == ["well", "ill"] and said["fit"] == "crop" and said["flips"] is False
    assert said["nominal_hu"] is True and said["image_size"] == 16
    assert said["slices"]["train"] == len(data.train)
    given = {"classes": said["classes"], "fit": said["fit"], "state": said["standardiser"]}
    again = image_data(folder_image_data, 16, parts=["test"], **given)
    assert list(again.datasets) == ["test"] and np.array_equal(again.test.images, data.test.images)


def test_another_folder_is_prepared_alike_and_must_hold_other_patients_image_data(
    folder_image_data: Path, tmp_path: Path
) -> None:
    data = image_data(folder_image_data, 16, classes="ill")
    with pytest.raises(UserError, match="is in the training split too"):
        data.from_folder(folder_image_data)
    other = tmp_path / "other" / "ill"
    other.mkdir(parents=True)
    for file in (folder_image_data / "ill").glob("paper0-*.png"):
        (other / file.name.replace("paper0", "q")).write_bytes(file.read_bytes())
    held = data.from_folder(tmp_path / "other")
    assert [sample.patient for sample in held.samples] == ["q"] * 3 and len(held) == 3
    (tmp_path / "other" / "ill").rename(tmp_path / "other" / "well")
    with pytest.raises(UserError, match="no class ill; there is well"):
        data.from_folder(tmp_path / "other")


def test_a_plain_folder_holds_the_class_that_is_asked_for(folder_image_data: Path, tmp_path: Path) -> None:
    mine, others = tmp_path / "mine", tmp_path / "others"
    shutil.copytree(folder_image_data / "ill", mine)
    others.mkdir()
    for file in mine.iterdir():
        shutil.copy(file, others / file.name.replace("paper", "q"))
    data = image_data(mine, 16)
    held = data.from_folder(others)
    assert data.class_names == ["mine"] and len(held) == 24
    assert {sample.category for sample in held.samples} == {"mine"} and held[0]["class"] == 0
    again = image_data(others, 16, classes=["mine"])  # as a model's own classes say
    assert again.class_names == ["mine"] and sum(map(len, again.splits.values())) == 24
    with pytest.raises(UserError, match="no class a, b; there is others"):
        image_data(others, 16, classes="a,b")


def test_a_shipped_model_is_evaluated_on_any_other_set(
    folder_image_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Split by a table, trained on a class that other sets do not have, shared without patients' names."""
    write_splits(folder_image_data / "splits.json", image_data(folder_image_data, 16).splits)
    trained = image_data(folder_image_data, 16, classes="ill")
    facts = {**trained.metadata(), "network": {"target": "x", "arguments": {"classes": 0}}}
    write_json(tmp_path / "model.json", facts)
    info = json.loads(shared_bytes(tmp_path / "model.json"))
    assert "splits" not in info and info["split"] == {"rule": "splits.json"} and info["classes"] == ["ill"]
    other = tmp_path / "other" / "hu"
    other.mkdir(parents=True)
    for file in (folder_image_data / "ill").iterdir():
        (other / file.name.replace("paper", "case")).write_bytes(file.read_bytes())
    caplog.clear()
    elsewhere = image_data(other.parent, 16, classes=info["classes"], trained=info)
    assert [len(part) for part in elsewhere.patients().values()] == [6, 1, 1]
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("cannot be told from others" in line for line in lines) == 1
    assert (
        sum("no class ill, as in the model's training; all images are taken" in line for line in lines) == 1
    )
    own = image_data(folder_image_data, 16, classes=info["classes"], trained=info)
    assert own.splits == trained.splits  # its own table is there
    assert len(own.from_folder(other.parent)) == 24 and own.class_names == ["ill"]
    conditional = {**info, "network": {"target": "x", "arguments": {"classes": 1}}}
    with pytest.raises(UserError, match="no class ill; there is hu"):
        image_data(other.parent, 16, classes=info["classes"], trained=conditional)


def test_bad_settings(folder_image_data: Path) -> None:
    with pytest.raises(UserError, match="no class severe; there is ill, well"):
        image_data(folder_image_data, 16, classes="severe")
    with pytest.raises(UserError, match="cannot be split into train, val and test"):
        image_data(folder_image_data, 16, patient_pattern="()")


@pytest.mark.realdata
def test_shared_covid_ct(shared_data: Path) -> None:
    data = image_data(shared_data / "covid_ct", 32)
    assert data.class_names == ["covid"] and sum(map(len, data.splits.values())) == 289
    units = [{sample.unit for sample in part} for part in data.splits.values()]
    assert sum(map(len, units)) == len(set.union(*units))
    assert 0.6 < len(data.splits["train"]) / 289 < 0.8


SIZE = 16


@pytest.fixture
def load(hearts: Path, tmp_path: Path) -> Callable[..., StructureData]:
    """Loads a folder, by default the made hearts, with any settings."""

    def loaded(folder: Path | None = None, **settings: Any) -> StructureData:
        return structure_data(folder or hearts, SIZE, tmp_path / "store", **settings)

    return loaded


def test_splits_and_summary(load: Callable[..., StructureData], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = load(labels="LV,Ao")
    assert [len(data[name]) for name in ("train", "val", "test")] == [8, 8, 4] and data.apart == {}
    parts = [{sample.patient for sample in part.samples} for part in data.datasets.values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 5
    assert "classes LV, Ao; left out 5 slices" in caplog.text
    with pytest.raises(UserError, match="no split 'x' was loaded"):
        data["x"]


def test_the_split_does_not_depend_on_labels_filters_or_axis(load: Callable[..., StructureData]) -> None:
    tables = [
        load(**settings).metadata()["splits"]
        for settings in ({}, {"labels": "PA", "min_pixels": 6}, {"axis": "sagittal", "every": 2})
    ]
    assert tables[0] == tables[1] == tables[2]
    assert load(split_seed=5).metadata()["splits"] != tables[0]


def test_metadata_is_json(load: Callable[..., StructureData]) -> None:
    said = json.loads(json.dumps(load(labels="LV", coarse=0.5, spacing=1.5, axis="coronal").metadata()))
    assert said["classes"] == ["LV", "whole_heart"] == said["label_set"]["classes"]
    assert said["window_hu"] == [-200.0, 600.0] and said["is_hu"] is True and said["nominal_hu"] is False
    assert said["intensity"] == {"kind": "window", "lower": -200.0, "upper": 600.0}
    assert (said["axis"], said["spacing"], said["image_size"]) == ("coronal", 1.5, SIZE)
    assert said["value_range"] == [-1, 1] and said["slices"]["train"] > 0 and said["condition"] == "label"


def window_of(part: SliceDataset) -> tuple[float, float]:
    return part.pairs[0].image.lower, part.pairs[0].image.upper


def test_percentiles_claim_no_hu(load: Callable[..., StructureData]) -> None:
    data = load(percentiles=(0, 100), parts=("val",))
    said = data.metadata()
    assert said["is_hu"] is said["nominal_hu"] is False and "window_hu" not in said
    assert said["intensity"] == {"kind": "percentile", "lower": 0.0, "upper": 100.0}
    assert window_of(data.val) == (-1000.0, 480.0) and list(data.datasets) == ["val"]
    with pytest.raises(UserError, match="two numbers"):
        load(percentiles=[1])


def test_other_filters_convert_nothing(load: Callable[..., StructureData], tmp_path: Path) -> None:
    load()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.npy")}
    load(
        labels="whole_heart",
        min_pixels=20,
        every=2,
        label_map="{1: LV, 2: RV, 3: LA, 4: RA, 5: Myo, 6: Ao, 7: PA}",
    )
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*.npy")} == before
    assert len(before) == 10


def test_training_alone_is_augmented_and_coarse(load: Callable[..., StructureData]) -> None:
    data = load(coarse=1.0, augmentation=mirror(), seed=1)
    assert torch.equal(data.train[SampleIndex(1, 0)]["image"], data.train[1]["image"].flip(-1))
    assert 8 in data.train[SampleIndex(1, 0)]["label"] and 8 not in data.train[1]["label"]
    assert torch.equal(data.val[SampleIndex(1, 0)]["label"], data.val[1]["label"])


def test_another_folder_with_another_map(
    load: Callable[..., StructureData], hearts: Path, tmp_path: Path
) -> None:
    data = load(parts=("test",))
    with pytest.raises(UserError, match="is in the training split too"):
        data.from_folder(hearts)
    label = heart_label(2)
    save_volume(tmp_path / "other" / "q.nii.gz", label.astype(np.int16) * 30 - 100)
    save_volume(tmp_path / "other" / "q_seg.nii.gz", np.where(label == 6, 44, 0).astype(np.uint8))
    with pytest.raises(UserError, match=r"q_seg.*values 44 .*give --label_map"):
        data.from_folder(tmp_path / "other")
    held = data.from_folder(tmp_path / "other", label_map={44: "Ao"})
    assert len(held) == 3 and held.labels.max() == 6 and held.samples[0].patient == "q"


def test_another_image_as_condition(load: Callable[..., StructureData], hearts: Path) -> None:
    (hearts / "labels").rename(hearts / "native")
    load = partial(load, source_range=[0, 7])  # of what were labels
    data = load(condition="image", condition_dir="native")
    assert len(data.train) == 10 and data.label_set is None and data.metadata()["classes"] == []
    item = data.train[1]
    assert -1 <= item["label"].min() < item["label"].max() <= 1 and item["image"].shape == item["label"].shape
    back = load(condition="image", condition_dir="images", image_dir="native").train[1]
    assert torch.equal(back["image"], item["label"]) and torch.equal(back["label"], item["image"])
    folders = {name: data.metadata()[name] for name in ("condition", "condition_dir", "image_dir")}
    assert folders == {"condition": "image", "condition_dir": "native", "image_dir": "images"}
    with pytest.raises(UserError, match="set condition_dir"):
        load(condition="image")


def test_pictures(tmp_path: Path, load: Callable[..., StructureData]) -> None:
    random = np.random.default_rng(0)
    for patient in range(3):
        for number in (4, 9):
            for kind, top in (("images", 255), ("labels", 7)):
                (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
                picture = random.integers(0, top, (20, 24), endpoint=True, dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / "set" / kind / f"{patient}_{number}.png")
    data = load(tmp_path / "set")
    assert [len(part) for part in data.datasets.values()] == [2, 2, 2]
    assert data.metadata()["nominal_hu"] is True and data.train.samples[0].index is None
    assert window_of(data.train) == (0.0, 255.0)


@pytest.mark.parametrize("direction", ["anisotropic", "oblique", "one slice"])
def test_unusual_geometry_works(load: Callable[..., StructureData], tmp_path: Path, direction: str) -> None:
    affine = np.diag([-0.7, -1.9, 8.0, 1.0])
    if direction == "oblique":
        turn = np.deg2rad(25)
        affine[:3, :3] = affine[:3, :3] @ [
            [np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)],
        ]  # fmt: skip
    depth = slice(1, 2) if direction == "one slice" else slice(None)
    for patient in range(3):
        label = heart_label(patient)[:, :, depth]
        save_volume(tmp_path / "set" / f"p{patient}_label.nii.gz", label, affine)
        save_volume(tmp_path / "set" / f"p{patient}.nii.gz", label.astype(np.int16) * 50 - 100, affine)
    data = load(tmp_path / "set", spacing=1.0)
    _, volume = next(iter(data.test.volumes(data.test.images)))
    assert volume.shape == (16, 16, 1 if direction == "one slice" else 5) and len(data.train) in (1, 4)


def test_bad_files_and_settings_are_named(
    load: Callable[..., StructureData], hearts: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no slices left of 10 \(p1, p2\): .*min_pixels=500"):
        load(min_pixels=500)
    with pytest.raises(UserError, match="axis 'z' is unknown"):
        load(axis="z")
    path = hearts / "images" / "p3.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"images/p3\.nii\.gz: cannot be read") as caught:
        load(spacing=1.5)
    assert "\n" not in str(caught.value)


@pytest.mark.realdata
def test_shared_acdc(shared_data: Path, tmp_path: Path) -> None:
    data = structure_data(
        shared_data / "acdc", 64, tmp_path, label_map="{1: RV, 2: Myo, 3: LV}", percentiles=(1, 99)
    )
    assert sum(len(part) for part in data.datasets.values()) == 313
    assert sum(part.dropped for part in data.datasets.values()) == 5
    parts = [set(part) for part in data.patients().values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 16
    # The left ventricle lies inside its myocardium, to the patient's left of the right ventricle.
    labels = data.test.labels[:, 0]
    assert set(np.unique(labels)) == {0, 1, 2, 5}
    columns = [
        np.mean([np.argwhere(mask == k)[:, 1].mean() for mask in labels if (mask == k).any()]) for k in (1, 2)
    ]
    assert columns[0] > columns[1]


@pytest.mark.realdata
def test_shared_chd(shared_data: Path, tmp_path: Path) -> None:
    data = structure_data(shared_data / "cardiac_chd", 64, tmp_path, min_pixels=0)
    assert sum(len(part) for part in data.datasets.values()) == 24
    assert sorted(chain(*data.patients().values())) == ["1001", "1002", "1003", "1004", "1005"]
    assert data.metadata()["nominal_hu"] is True


@pytest.mark.realdata
def test_shared_totalsegmentator_label(
    shared_data: Path, tmp_path: Path, load: Callable[..., StructureData]
) -> None:
    data = load(coarse=0.5, parts=("test",))
    with pytest.raises(UserError, match="is none of"):
        load().from_folder(shared_data / "cardiac_cta", label_map="{1: whole_heart, 2: Ao, 3: PA}")
    held = data.from_folder(shared_data / "cardiac_cta", label_map="{1: whole_heart, 2: Ao, 3: PA}")
    assert set(np.unique(held.labels)) == {0, 6, 7, 8} and window_of(held) == (-200, 600)
    assert len(held) + held.dropped == 164


@pytest.fixture
def folder_nodule_data(tmp_path: Path) -> Path:
    """Crops: 10 patients with two nodules each."""
    random = np.random.default_rng(0)
    mask = np.zeros((12, 12))
    mask[4:8, 5:9] = 1
    for patient in range(10):
        for nodule in range(2):
            picture = random.integers(0, 256, (12, 12))
            write_picture(tmp_path / "set", f"LIDC-IDRI-{patient:04d}_nodule-{nodule}", picture, mask)
    return tmp_path / "set"


def test_patients_are_split_and_scans_read(folder_nodule_data: Path) -> None:
    data = NoduleData(folder_nodule_data, 12, augmentation=mirror(), parts=["train", "val"])
    patients = data.patients()
    assert sum(map(len, patients.values())) == 10 and min(map(len, patients.values())) >= 1
    assert not set(patients["train"]) & {*patients["val"], *patients["test"]}
    assert set(data.datasets) == {"train", "val"} and len(data.train) == 2 * len(patients["train"])
    for part, mirrored in ((data.train, True), (data.val, False)):
        assert mirrored != torch.equal(part[SampleIndex(0, 0)]["image"], part[0]["image"])
    scans = list(data.scans("test"))
    assert {scan.patient for scan in scans} == set(patients["test"]) and len(list(data.scans("test", 1))) == 1
    assert scans[0].hu.shape == (1, 12, 12)
    assert "train slices: " in data.summary()
    info = data.metadata()
    assert info["window_hu"] == [-1000, 400] and info["nominal_hu"] is True and info["splits"] == patients


def test_the_split_is_that_of_its_seed(folder_nodule_data: Path) -> None:
    first = NoduleData(folder_nodule_data, parts=[])
    assert first.patients() == NoduleData(folder_nodule_data, seed=5, image_size=32, parts=[]).patients()
    assert first.patients() != NoduleData(folder_nodule_data, split_seed=1, parts=[]).patients()


def test_other_folders_must_hold_other_patients(folder_nodule_data: Path, tmp_path: Path) -> None:
    data = NoduleData(folder_nodule_data, parts=[])
    write_picture(tmp_path / "b", "LIDC-IDRI-0099_nodule-0", np.eye(8), np.eye(8))
    assert [record.patient for record in data.others(tmp_path / "b")] == ["LIDC-IDRI-0099"]
    with pytest.raises(UserError, match="is in the training split too"):
        data.others(folder_nodule_data)


@pytest.mark.realdata
def test_shared_crops_are_split_by_patient(shared_data: Path) -> None:
    data = NoduleData(shared_data / "nodule_slices", parts=[])
    patients = data.patients()
    assert {name: len(part) for name, part in patients.items()} == {"train": 359, "val": 82, "test": 85}
    assert len(set().union(*patients.values())) == 526
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 628, "val": 146, "test": 147}
