from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from common.data.store.request import Request
from common.data.store.store import SliceStore
from common.errors import UserError
from common.inference.labels import LabelSlices, geometry_of, label_set_of
from common.inference.sources import Source
from tests.common.inference.hearts import heart, model_facts, save


def slices(path: Path, info: dict[str, object], **options: object) -> LabelSlices:
    return LabelSlices([Source(path)], info, **options)  # type: ignore[arg-type]


def test_items_are_class_indices_in_the_order_of_the_files(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.nii.gz", heart(9, 8, 3)), tmp_path / "b.png"]
    Image.fromarray(heart(9, 8, 1)[..., 0]).save(paths[1])
    dataset = LabelSlices([Source(path) for path in paths], model_facts(16))
    assert len(dataset) == 4 and list(dataset.files.values()) == [[0, 1, 2], [3]]
    item = dataset[3]
    assert item["sample"] == 3 and item["label"].shape == (1, 16, 16) and item["label"].dtype == torch.float32
    assert set(item["label"].unique().tolist()) == {0.0, 1.0, 2.0, 7.0}


def test_the_classes_are_the_models(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 3))
    values = {
        name: set(slices(path, model_facts(9, name, coarse))[1]["label"].unique().tolist())
        for name, coarse in (("PA", False), ("LV,PA", True), ("whole_heart", False))
    }
    assert values == {
        "PA": {0.0, 1.0},  # the rest is background
        "LV,PA": {0.0, 1.0, 2.0, 3.0},  # RV counts as whole_heart, the last class
        "whole_heart": {0.0, 1.0},
    }


def test_a_map_says_what_a_foreign_files_values_mean(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 3) * np.uint8(10))
    with pytest.raises(UserError, match=r"a\.nii\.gz: label values 10, 20, 70 .*--label_map"):
        slices(path, model_facts(9))
    info = model_facts(9)
    dataset = slices(path, info, label_map="{10: LA, 20: background, 70: Ao}")
    assert set(dataset[1]["label"].unique().tolist()) == {0.0, 3.0, 6.0}
    trained_so = {
        **info,
        "label_set": {**info["label_set"], "label_map": {"10": "LV", "20": "RV", "70": "PA"}},
    }
    assert set(slices(path, trained_so)[1]["label"].unique().tolist()) == {0.0, 1.0, 2.0, 7.0}
    with pytest.raises(UserError, match="label values 10, 20, 70"):
        slices(path, trained_so, label_map="default")


def test_whole_heart_needs_a_model_that_knows_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 3))
    table = {1: "whole_heart", 2: "Ao", 7: "PA"}
    with pytest.raises(UserError, match=r"a\.nii\.gz: value 1 means whole_heart, which is no"):
        slices(path, model_facts(9), label_map=table)
    dataset = slices(path, model_facts(9, coarse=True), label_map=table)
    assert set(dataset[1]["label"].unique().tolist()) == {0.0, 6.0, 7.0, 8.0}


def test_the_geometry_is_that_of_training(tmp_path: Path) -> None:
    """Whatever the store makes of a file in training is what the network sees."""
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 12), np.diag([-1.0, -1.0, 2.0, 1.0]))
    info = model_facts(20, axis="coronal", spacing=0.8)
    dataset = slices(path, info)
    stored = SliceStore(tmp_path / "store", geometry_of(info)).convert([Request(path, "label")])[0]
    codes = np.load(stored.array)
    assert len(dataset) == 8 == len(codes) and codes.shape[1:] == (20, 20)
    seen = np.stack([dataset[index]["label"][0].numpy() for index in range(8)])
    assert (seen == np.array(stored.values)[codes]).all()


def test_an_image_as_condition_comes_in_the_networks_range(tmp_path: Path) -> None:
    image = np.arange(-400, 800, 12, dtype=np.int16).reshape(5, 5, 4)
    path = save(tmp_path / "native.nii.gz", image)
    dataset = slices(path, model_facts(5, condition="image"))
    assert dataset.classes == () and label_set_of(model_facts(5, condition="image")) is None
    batch = torch.stack([dataset[index]["label"] for index in range(4)])
    assert batch.min() == -1 and batch.max() == 1 and len(batch.unique()) > 50


def test_workers_give_the_same_and_the_temporary_folder_goes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 6))
    tempfile.tempdir, before = str(tmp_path), tempfile.tempdir
    try:
        dataset = slices(path, model_facts(8))
        folder = next(tmp_path.glob("slices-*"))
        batches = list(DataLoader(dataset, batch_size=2, num_workers=1))
        assert folder.is_dir()
        assert torch.equal(batches[2]["label"][1], dataset[5]["label"])
        del dataset
        assert not folder.exists()
    finally:
        tempfile.tempdir = before


def test_a_store_of_ones_own_stays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 6))
    slices(path, model_facts(8), store_dir=tmp_path / "store")
    assert len(list((tmp_path / "store").glob("a-label-*.npy"))) == 1


def test_a_volume_without_the_models_structures_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 6))
    with caplog.at_level(logging.WARNING):
        slices(path, model_facts(8, "LA"))
    assert "a.nii.gz: holds none of the model's structures (LA)" in caplog.text


def test_slices_that_training_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    label = heart(9, 8, 5)
    label[..., 3:] = 0
    path = save(tmp_path / "a.nii.gz", label)
    slices(path, {**model_facts(9), "min_pixels": 0})
    assert not caplog.records
    slices(path, {**model_facts(9), "min_pixels": 1})
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 5 slices hold fewer than 1 pixels of the model's structures")
    assert "a.nii.gz" in record.getMessage() and "--min_pixels 0" in record.getMessage()


def test_the_noise_follows_a_volume_through_its_mm(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", heart(9, 8, 5))
    axial, coronal = slices(path, model_facts(9)), slices(path, model_facts(9, axis="coronal"))
    spacing = axial.converted[0].condition.spacing
    assert [axial[index]["noise_mm"] for index in range(5)] == pytest.approx(np.arange(5) * spacing[2])
    assert coronal[4]["noise_mm"] == pytest.approx(4 * spacing[0])
    assert len({dataset[2]["noise_key"] for dataset in (axial, coronal)}) == 1
    Image.fromarray(heart(9, 8, 1)[..., 0]).save(tmp_path / "b.png")
    assert np.isnan(slices(tmp_path / "b.png", model_facts(9))[0]["noise_mm"])


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.nii.gz", heart(9, 8, 6))
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:-20])
    save(tmp_path / "time.nii.gz", np.zeros((4, 4, 4, 2), np.uint8))
    save(tmp_path / "image.nii.gz", np.arange(-500, 500, dtype=np.int16).reshape(10, 10, 10))
    save(tmp_path / "flat.nii.gz", heart(9, 8, 1))
    for name, info, said in (
        ("cut", model_facts(8), "cannot be read"),
        ("time", model_facts(8), "has 4 dimensions"),
        ("image", model_facts(8), "so it is no label file"),
        ("flat", model_facts(8, axis="sagittal"), "holds one slice"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.nii\.gz: .*{said}"):
            slices(tmp_path / f"{name}.nii.gz", info)
    assert len(slices(tmp_path / "flat.nii.gz", model_facts(8))) == 1  # axial: one slice is a slice
