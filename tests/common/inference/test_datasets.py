from __future__ import annotations

import logging
import tempfile
from inspect import signature
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from common.data.datamodules import StructureData
from common.data.labels import STRUCTURES
from common.data.slice_cache import SliceCache
from common.data.slice_geometry import Request
from common.data.transforms import LoadCachedSliced
from common.errors import UserError
from common.inference.datasets import (
    LabelSlices,
    LabelVariants,
    Source,
    aspect,
    data_settings,
    find_sources,
    geometry_of,
    label_set_of,
)
from tests.common.inference.hearts import AFFINES, heart, model_facts, save


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
    stored = SliceCache(tmp_path / "store", geometry_of(info)).convert([Request(path, "label")])[0]
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


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), path)
    return path


def test_one_file_with_or_without_its_image(tmp_path: Path) -> None:
    label, image = volume(tmp_path / "label.nii.gz"), volume(tmp_path / "ct.nii.gz")
    assert find_sources(label_file=str(label)) == [Source(label)]
    assert find_sources(label_file=label, ct_file=image) == [Source(label, image)]


def test_a_folder_is_all_of_its_files_by_name(tmp_path: Path) -> None:
    second, first = volume(tmp_path / "b.nii.gz"), volume(tmp_path / "a.nii")
    (tmp_path / ".hidden").touch()
    (tmp_path / "notes.txt").touch()
    assert find_sources(input_dir=tmp_path) == [Source(first), Source(second)]


def test_a_data_set_is_its_labels_with_their_images(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        volume(tmp_path / f"{name}.nii.gz")
        volume(tmp_path / f"{name}_label.nii.gz")
    found = find_sources(dataset_dir=tmp_path)
    assert found == [Source(tmp_path / f"{n}_label.nii.gz", tmp_path / f"{n}.nii.gz") for n in ("p1", "p2")]


def test_a_data_set_of_two_images_is_the_ones_that_the_model_takes(tmp_path: Path) -> None:
    first, second = volume(tmp_path / "native" / "p.nii.gz"), volume(tmp_path / "images" / "p.nii.gz")
    info = {"condition": "image", "condition_dir": "native", "image_dir": "images"}
    assert find_sources(dataset_dir=tmp_path, info=info) == [Source(first, second)]
    back = {"condition": "image", "condition_dir": "images", "image_dir": "native"}
    assert find_sources(dataset_dir=tmp_path, info=back) == [Source(second, first)]


def test_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    for case in ("case1", "case2"):
        volume(tmp_path / case / "ct.nii.gz")
        volume(tmp_path / case / "label.nii.gz")
    with pytest.raises(UserError, match=r"case2/label\.nii\.gz: .*case1/label\.nii\.gz has the same name"):
        find_sources(dataset_dir=tmp_path)


def test_what_is_asked_must_be_clear(tmp_path: Path) -> None:
    label = volume(tmp_path / "label.nii.gz")
    with pytest.raises(UserError, match="--label_file, --input_dir and --dataset_dir; none was given"):
        find_sources()
    with pytest.raises(UserError, match="--label_file and --input_dir was given"):
        find_sources(label_file=label, input_dir=tmp_path)
    with pytest.raises(UserError, match="give it with --label_file"):
        find_sources(input_dir=tmp_path, ct_file=label)
    with pytest.raises(UserError, match=r"nowhere\.nii: no such file"):
        find_sources(label_file=tmp_path / "nowhere.nii")
    with pytest.raises(UserError, match=r"ct\.nii: no such file"):
        find_sources(label_file=label, ct_file=tmp_path / "ct.nii")
    with pytest.raises(UserError, match="no such folder"):
        find_sources(input_dir=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no label files"):
        find_sources(input_dir=tmp_path / "empty")


MR = {
    "condition": "label",
    "label_set": {"classes": ["LV", "RV", "Myo"], "label_map": {"1": "RV", "2": "Myo", "3": "LV"}},
    "intensity": {"kind": "percentile", "lower": 1.0, "upper": 99.0},
    "image_size": 96,
    "axis": "coronal",
    "spacing": 2.5,
    "interpolation": "linear",
}


def test_the_models_own_settings_come_back() -> None:
    given = data_settings(MR)
    assert (given["image_size"], given["axis"], given["spacing"]) == (96, "coronal", 2.5)
    assert given["fit"] == "stretch"  # of models that say nothing
    assert data_settings({**MR, "fit": "pad"})["fit"] == "pad"
    assert given["interpolation"] == "linear" and given["percentiles"] == [1, 99]
    assert given["label_set"].classes == ("LV", "RV", "Myo")
    assert given["label_set"].label_map == {1: "RV", 2: "Myo", 3: "LV"}


def test_a_window_is_given_as_its_ends() -> None:
    given = data_settings({**MR, "intensity": {"kind": "window", "lower": -100.0, "upper": 500.0}})
    assert given["window"] == [-100, 500] and given["percentiles"] is None


def test_files_of_another_convention() -> None:
    assert data_settings(MR, "{7: LV}")["label_set"].label_map == {7: "LV"}
    assert data_settings(MR, "default")["label_set"].label_map is None


def test_a_condition_image_has_no_classes() -> None:
    given = data_settings({**MR, "condition": "image", "label_set": None})
    assert given["label_set"] is None


def test_without_a_model_the_defaults_stand() -> None:
    given = data_settings({})
    assert given["image_size"] == 128 and given["window"] == [-200, 600]
    assert list(given["label_set"].classes) == list(STRUCTURES)


def test_all_are_arguments_of_the_data_set() -> None:
    known = {*signature(LoadCachedSliced).parameters, *signature(StructureData).parameters}
    assert set(data_settings(MR)) <= known


SIZE = 32
STRONG = {"elastic": 0.05, "growth": 0.02, "mix": 0.8}


def ball(shift: int = 0, depth: int = 8) -> np.ndarray:
    """A ventricle (1) in its wall (5), in all slices but the outer two; (x, y, z)."""
    x, y, z = np.mgrid[:SIZE, :SIZE, :depth]
    distance = np.hypot(x - 15 - shift, y - 16)
    label = np.where(distance < 6 + shift, 1, np.where(distance < 9 + shift, 5, 0))
    return (label * ((z > 0) & (z < depth - 1))).astype(np.uint8)


def slices_variants(folder: Path, **facts: Any) -> LabelSlices:
    return LabelSlices(find_sources(input_dir=folder), model_facts(SIZE, **facts), hu_offset=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        save(tmp_path / "labels" / f"heart{number}_label.nii.gz", ball(number, 8 + number))
    return tmp_path / "labels"


def test_each_file_has_its_variants_and_each_variant_its_slices(folder: Path) -> None:
    made = LabelVariants(slices_variants(folder), STRONG, variants=2)
    names = [f"heart{file}_variant{number:02d}" for file in range(3) for number in (1, 2)]
    assert [variant.name for variant in made.variants] == names == [str(path) for path in made.files]
    assert [len(places) for places in made.files.values()] == [8, 8, 9, 9, 10, 10] and len(made) == 54
    item = made[20]
    assert item["sample"] == 20 and item["label"].shape == (1, SIZE, SIZE)
    assert item["label"].dtype == torch.float32 and set(item["label"].unique().tolist()) <= {0.0, 1.0, 5.0}


def test_variants_differ_from_each_other_and_keep_the_anatomy(folder: Path) -> None:
    made = LabelVariants(slices_variants(folder), STRONG, variants=2)
    first, second = (
        np.stack([made.condition(p) for p in made.files[Path(f"heart0_variant0{n}")]]) for n in (1, 2)
    )
    own = made.original(made.variants[0].file)
    assert not np.array_equal(first, second) and not np.array_equal(first, own)
    for stack in (first, second):
        assert set(np.unique(stack)) == {0, 1, 5}
        assert np.count_nonzero(stack) == pytest.approx(np.count_nonzero(own), rel=0.5)
        assert not stack[0].any() and not stack[-1].any()


def test_the_partner_is_another_patient(folder: Path) -> None:
    made = LabelVariants(slices_variants(folder), STRONG, variants=8)
    for variant in made.variants:
        assert variant.partner is not None and variant.partner is not variant.file
    alone = LabelVariants(slices_variants(folder), {"elastic": 0.05, "mix": 0.0})
    assert all(variant.partner is None for variant in alone.variants)


def test_the_same_seed_gives_the_same_in_any_order(folder: Path) -> None:
    one, two = (LabelVariants(slices_variants(folder), STRONG, variants=2, seed=4) for _ in range(2))
    forth = [one.condition(place).copy() for place in range(len(one))]
    back = [two.condition(place).copy() for place in reversed(range(len(two)))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forth, back, strict=True))
    other = LabelVariants(slices_variants(folder), STRONG, variants=2, seed=5)
    assert not all(np.array_equal(other.condition(n), forth[n]) for n in range(len(other)))


def test_strength_zero_gives_the_file_itself(folder: Path) -> None:
    still = LabelVariants(slices_variants(folder), {"elastic": 0.0, "growth": 0.0})
    plain = slices_variants(folder)
    for place in range(len(plain)):
        assert torch.equal(still[place]["label"], plain[place]["label"])


def test_pictures_are_perturbed_in_their_plane(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(ball(number)[..., 4]).save(tmp_path / f"case{number}_01.png")
    made = LabelVariants(slices_variants(tmp_path), STRONG)
    assert [variant.name for variant in made.variants] == ["case0_01_variant01", "case1_01_variant01"]
    assert made.variants[0].partner is made.variants[1].file
    assert set(made[0]["label"].unique().tolist()) == {0.0, 1.0, 5.0}


@pytest.mark.parametrize(
    ("axis", "spacing", "fit", "expected"),
    [
        ("axial", None, "stretch", 1.5 / (0.75 * 1.5)),
        ("coronal", None, "stretch", 1.5 / (1.5 * (24 + 12) / 2 / 32)),
        ("coronal", None, "pad", 1.5 / (1.5 * 24 / 32)),
        ("coronal", None, "crop", 1.5 / (1.5 * 12 / 32)),
        ("axial", 0.5, "pad", 3.0),
    ],
)
def test_the_distance_of_slices_is_counted_in_their_pixels(
    tmp_path: Path, axis: str, spacing: float | None, fit: str, expected: float
) -> None:
    save(tmp_path / "heart.nii.gz", ball()[:24, :24].repeat(2, axis=2)[:, :, :12], AFFINES["lps"])
    made = LabelVariants(slices_variants(tmp_path, axis=axis, spacing=spacing, fit=fit))
    assert aspect(made.variants[0].file.condition) == pytest.approx(expected)


def test_bad_settings_are_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match="variants 0"):
        LabelVariants(slices_variants(folder), variants=0)
    with pytest.raises(UserError, match="condition of this model is an image"):
        LabelVariants(slices_variants(folder, condition="image"))
