"""A bank as training data: what is shown, how it is split, and the classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import RandFlipd, RandRotate90d

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceRecord
from bundles.lung_two_stage.generation.bank_data import (
    BankData,
    bank_preprocessing,
    classes_of,
    images_to_alpha,
    images_to_hu,
    prepare_images,
    turn,
)
from common.data.intensity import Window
from common.data.loaders import SampleIndex
from common.errors import UserError
from tests.bundles.lung_two_stage.generation.made import SIZE, made_nodules


def test_hu_and_alpha_become_images_and_come_back() -> None:
    bank = made_nodules()
    images = prepare_images(bank, bank_preprocessing(SIZE, Window(-1000, 400)))
    assert images.shape == (40, 2, SIZE, SIZE) and images.dtype == np.float32
    assert images.min() >= -1 and images.max() <= 1
    hu = images_to_hu(images, Window(-1000, 400), SIZE, SIZE)
    assert np.abs(hu - bank.hu.clip(-1000, 400)).max() <= 1
    assert np.array_equal(images_to_alpha(images, SIZE), bank.alpha)
    assert images_to_hu(images, Window(-1000, 400), 24, 20).shape == (40, 24, 20)


def test_patients_are_split_four_to_one(work: Path) -> None:
    data = BankData(work / "extraction" / "nodules", "nodules", SIZE)
    assert {name: len(part) for name, part in data.datasets.items()} == {"train": 32, "val": 4, "test": 4}
    patients = data.patients()
    assert len(set().union(*map(set, patients.values()))) == 10 == sum(map(len, patients.values()))
    bank = NoduleBank.load(work / "extraction" / "nodules")
    for part, indices in data.indices.items():
        shown = images_to_hu(data[part].images, data.window, SIZE, SIZE)
        assert np.abs(shown - bank.hu[indices].clip(-1000, 400)).max() <= 1
        assert [s.category for s in data[part].samples] == [bank.records[n].category for n in indices]
    assert data.channels == 2 and data.metadata()["spacing_mm"] == 2.5
    assert data.metadata()["classes"] == ["part_solid", "solid"]


def test_visits_are_turned_the_same_way_every_time(work: Path) -> None:
    turns = [RandFlipd("image", 0.5, spatial_axis=1), RandRotate90d("image", 0.75, max_k=3)]
    data = BankData(work / "extraction" / "nodules", "nodules", SIZE, augmentation=turns)
    plain = data.train[3]["image"].numpy()
    visits = [data.train[SampleIndex(3, epoch)]["image"].numpy() for epoch in range(12)]
    orientations = [turn(plain, number) for number in range(8)]
    ways = [next(n for n, one in enumerate(orientations) if np.array_equal(one, visit)) for visit in visits]
    assert len(set(ways)) > 3 and data.metadata()["turned"]
    assert np.array_equal(data.train[SampleIndex(3, 5)]["image"].numpy(), visits[5])
    assert not data.val.turned and len(data.train.as_seen()) == 8 * 32 and len(data.val.as_seen()) == 4
    assert np.array_equal(data.train.as_seen().images[32 * 6 + 3], turn(plain, 6))


def test_slices_have_one_channel_and_are_resized(work: Path) -> None:
    data = BankData(work / "extraction" / "healthy_slices", "healthy_slices", 16)
    item = data.train[0]
    assert item["image"].shape == (1, 16, 16) and item["class"] == 0 and data.class_names == []
    assert torch.equal(data.train.first_channel()[0]["image"], item["image"])


def test_another_bank_is_prepared_alike_but_must_have_other_patients(work: Path, tmp_path: Path) -> None:
    data = BankData(work / "extraction" / "nodules", "nodules", SIZE)
    with pytest.raises(UserError, match="is in the training split too"):
        data.other_bank(work / "extraction" / "nodules")
    bank = made_nodules(each=1)
    strangers = [NoduleRecord(f"x{n}", f"x{n}", r.category, 9.0, 2.5) for n, r in enumerate(bank.records)]
    NoduleBank(bank.hu, bank.alpha, strangers).save(tmp_path / "others")
    assert len(data.other_bank(tmp_path / "others")) == 10


def test_a_models_own_preprocessing_is_used_again(work: Path) -> None:
    folder, limits = work / "extraction" / "healthy_slices", {"a_min": -1000, "a_max": 400}
    plain = BankData(folder, "healthy_slices", 32)
    half = {
        "target": "ScaleIntensityRanged",
        "arguments": {"keys": "image", **limits, "b_min": -0.5, "b_max": 0.5},
    }
    data = BankData.of_model({**plain.metadata(), "preprocessing": [half]}, folder, "healthy_slices", 0)
    inside = np.abs(plain.train.images) < 1  # it does not clip
    assert inside.any() and np.allclose(data.train.images[inside], plain.train.images[inside] / 2, atol=1e-5)


def records(*diameters: float, category: str = "") -> list[NoduleRecord]:
    return [NoduleRecord(str(d), "p", category, d, 1.0) for d in diameters]


def test_classes() -> None:
    mixed = [*records(4, 5, category="b"), *records(6, category="a")]
    assert classes_of(mixed, [0]).names == ["a", "b"] and classes_of(mixed, [0]).kind == "category"
    plain = records(3, 4, 5, 6, 7, 8, 20)
    assert classes_of(plain, [0, 1, 2]).names == []
    by_size = classes_of(plain, range(6), "diameter")
    assert [by_size.name_of(record) for record in plain] == [
        *["small"] * 2,
        *["medium"] * 2,
        *["large"] * 3,
    ]
    with pytest.raises(UserError, match="choose none or diameter"):
        classes_of(plain, [0], "size")
    with pytest.raises(UserError, match="no diameter"):
        classes_of([SliceRecord("a", "p", 1.0)], [0], "diameter")


def test_an_unknown_layer_and_a_missing_bank_are_refused(work: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no bank of nodules here; make it: .*monai\.bundle run extraction"):
        BankData(tmp_path, "nodules", SIZE)
    with pytest.raises(UserError, match="choose nodules or healthy_slices"):
        BankData(work / "extraction" / "nodules", "nodule", SIZE)
