from __future__ import annotations

import json
import logging
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.augment import Augmentation
from common.data.sampling import Draw
from common.data.splits import write_splits
from common.data.structure_data import StructureData
from common.errors import UserError

SIZE = 16
Save = Callable[..., Path]


@pytest.fixture
def load(hearts: Path, tmp_path: Path) -> Callable[..., StructureData]:
    """Loads a folder, by default the made hearts, with any settings."""

    def loaded(folder: Path | None = None, **settings: Any) -> StructureData:
        return StructureData(folder or hearts, SIZE, tmp_path / "store", **settings)

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


def test_percentiles_claim_no_hu(load: Callable[..., StructureData]) -> None:
    data = load(percentiles=(0, 100), parts=("val",))
    said = data.metadata()
    assert said["is_hu"] is said["nominal_hu"] is False and "window_hu" not in said
    assert said["intensity"] == {"kind": "percentile", "lower": 0.0, "upper": 100.0}
    assert data.val.window_of(0) == (-1000.0, 480.0) and list(data.datasets) == ["val"]
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
    data = load(coarse=1.0, augment={"flip": 1.0, "shift": 0.0, "scale": 0.0, "rotation": 0.0}, seed=1)
    assert data.train.augment == Augmentation(1.0, 0.0, 0.0, 0.0) and data.val.augment is None
    assert 8 in data.train[Draw(0, 1)]["label"] and 8 not in data.train[1]["label"]
    assert torch.equal(data.val[Draw(0, 1)]["label"], data.val[1]["label"])


def test_the_folders_own_splits_are_used(load: Callable[..., StructureData], hearts: Path) -> None:
    first = load()
    swapped = {"train": first.splits["test"], "val": first.splits["val"], "test": first.splits["train"]}
    write_splits(hearts / "splits.json", swapped)
    assert load().splits == swapped


def test_another_folder_with_another_map(
    load: Callable[..., StructureData], hearts: Path, tmp_path: Path, save_volume: Save, heart_label: Callable
) -> None:
    data = load(parts=("test",))
    with pytest.raises(UserError, match="is in the training split too"):
        data.whole(hearts)
    label = heart_label(2)
    save_volume(tmp_path / "other" / "q.nii.gz", label.astype(np.int16) * 30 - 100)
    save_volume(tmp_path / "other" / "q_seg.nii.gz", np.where(label == 6, 44, 0).astype(np.uint8))
    with pytest.raises(UserError, match=r"q_seg.*values 44 .*give --label_map"):
        data.whole(tmp_path / "other")
    held = data.whole(tmp_path / "other", label_map={44: "Ao"})
    assert len(held) == 3 and held.labels.max() == 6 and held.samples[0].patient == "q"


def test_another_image_as_condition(load: Callable[..., StructureData], hearts: Path) -> None:
    (hearts / "labels").rename(hearts / "native")
    data = load(condition="image", condition_dir="native")
    assert len(data.train) == 10 and data.label_set is None and data.metadata()["classes"] == []
    item = data.train[1]
    assert -1 <= item["label"].min() < item["label"].max() <= 1 and item["image"].shape == item["label"].shape
    back = load(condition="image", condition_dir="images", image_dir="native").train[1]
    assert torch.equal(back["image"], item["label"]) and torch.equal(back["label"], item["image"])
    folders = {name: data.metadata()[name] for name in ("condition", "condition_dir", "image_dir")}
    assert folders == {"condition": "image", "condition_dir": "native", "image_dir": "images"}
    with pytest.raises(UserError, match="needs condition_dir"):
        load(condition="image")
    with pytest.raises(UserError, match="condition 'mask' is unknown"):
        load(condition="mask")


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
    assert data.train.window_of(0) == (0.0, 255.0)


@pytest.mark.parametrize("direction", ["anisotropic", "oblique", "one slice"])
def test_unusual_geometry_works(
    load: Callable[..., StructureData],
    tmp_path: Path,
    save_volume: Save,
    heart_label: Callable,
    direction: str,
) -> None:
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


Change = Callable[[Path], None]


def rewritten(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def changed(path: Path) -> None:
        volume = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.asarray(volume.dataobj)), volume.affine), path)

    return changed


def no_spacing(path: Path) -> None:
    """Sizes 0 in the header and no other affine: what a careless converter leaves."""
    raw = bytearray(nib.load(path).to_bytes())
    raw[80:92] = bytes(12)  # pixdim[1..3]
    raw[252:256] = bytes(4)  # qform_code and sform_code
    path.with_suffix("").write_bytes(raw)
    path.unlink()


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("labels", rewritten(lambda a: a[:-1]), r"labels/p3.*16 x 15 x 5 voxels but .*images/p3"),
        ("labels", rewritten(lambda a: a * 30), r"labels/p3.*values 30, 60, 90.*no map is given"),
        ("labels", rewritten(lambda a: a + 0.5), r"labels/p3.*no label"),
        ("images", rewritten(lambda a: a * 0), r"images/p3.*every pixel has the same value"),
        ("images", lambda path: path.write_bytes(path.read_bytes()[:-40]), r"images/p3.*cannot be read"),
        ("labels", lambda path: path.write_bytes(path.read_bytes()[:60]), r"labels/p3.*cannot be read"),
        ("images", no_spacing, r"images/p3.*(affine|spacing|voxel size)"),
        ("labels", Path.unlink, r"images/p3.*image without mask"),
        ("images", Path.unlink, r"labels/p3.*mask without image"),
    ],
)  # fmt: skip
def test_bad_files_are_named(
    load: Callable[..., StructureData], hearts: Path, kind: str, change: Change, said: str
) -> None:
    change(hearts / kind / "p3.nii.gz")
    with pytest.raises(UserError, match=said) as caught:
        load(spacing=1.5)
    assert "\n" not in str(caught.value)


def test_bad_settings(load: Callable[..., StructureData], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images with labels"):
        load(tmp_path / "empty")
    with pytest.raises(UserError, match=r"no slices left of 10 \(p1, p2\): .*min_pixels=500"):
        load(min_pixels=500)
    with pytest.raises(UserError, match="whole_heart, which is none of"):
        load(label_map="{1: whole_heart, 2: LV, 3: LV, 4: LV, 5: LV, 6: LV, 7: LV}")
    for settings, said in (
        ({"labels": "liver"}, "'liver' is unknown"),
        ({"axis": "z"}, "axis 'z' is unknown"),
        ({"window": "x"}, "window 'x' is unknown"),
        ({"fractions": (0.5, 0.5)}, "three numbers"),
        ({"every": 0}, "every 0"),
    ):
        with pytest.raises(UserError, match=said):
            load(**settings)


@pytest.mark.realdata
def test_shared_acdc(shared_data: Path, tmp_path: Path) -> None:
    data = StructureData(
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
    data = StructureData(shared_data / "cardiac_chd", 64, tmp_path, min_pixels=0)
    assert sum(len(part) for part in data.datasets.values()) == 24
    assert sorted(chain(*data.patients().values())) == ["1001", "1002", "1003", "1004", "1005"]
    assert data.metadata()["nominal_hu"] is True


@pytest.mark.realdata
def test_shared_totalsegmentator_label(
    shared_data: Path, tmp_path: Path, load: Callable[..., StructureData]
) -> None:
    data = load(coarse=0.5, parts=("test",))
    with pytest.raises(UserError, match="is none of"):
        load().whole(shared_data / "cardiac_cta", label_map="{1: whole_heart, 2: Ao, 3: PA}")
    held = data.whole(shared_data / "cardiac_cta", label_map="{1: whole_heart, 2: Ao, 3: PA}")
    assert set(np.unique(held.labels)) == {0, 6, 7, 8} and held.window_of(0) == (-200, 600)
    assert len(held) + held.dropped == 164
