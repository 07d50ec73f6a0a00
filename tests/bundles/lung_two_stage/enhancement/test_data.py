"""Two sides, each with a part held out; no patient on both sides of the fence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import RandFlipd

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.enhancement.data import (
    EnhancerData,
    check_no_shared_patients,
    patients_of,
    to_changed_hu,
)
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window
from common.data.loaders import SampleIndex
from common.errors import UserError
from tests.bundles.lung_two_stage.made_work import made_work, nodule_bank, slice_bank


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_work(tmp_path_factory.mktemp("work"))


def data_of(work: Path, **settings: Any) -> EnhancerData:
    extraction = work / "extraction"
    folders = {
        "composites_dir": work / "composites",
        "real_dir": extraction / "others",
        "used_dirs": [extraction / "nodules", extraction / "healthy_slices"],
    }
    return EnhancerData(**{**folders, **settings})


def test_parts_are_disjoint(work: Path) -> None:
    data = data_of(work, held_out=0.3)
    composites = [set(part.first.numbers) for part in (data.train, data.val)]
    assert [len(part) for part in composites] == [14, 6] and not composites[0] & composites[1]
    assert len(data.patients["train"]) == 3 and len(data.patients["val"]) == 1
    assert sorted(data.patients["train"] + data.patients["val"]) == ["m", "n", "o", "p"]
    assert len(data.train.second) == 12 and len(data.val.second) == 4


def test_items_are_images_of_the_window_with_the_composites_mask(work: Path) -> None:
    data = data_of(work)
    item = data.train[SampleIndex(3, 0)]
    hu, mask, _ = data.composites[data.train.first.numbers[3]]
    assert item["label"].shape == item["image"].shape == item["mask"].shape == (1, 32, 32)
    np.testing.assert_array_equal(item["mask"][0].numpy() > 0, mask > 0)
    assert set(item["mask"].unique().tolist()) == {0.0, 1.0}
    expected = (hu.clip(-1000, 400) + 1000) / 700 - 1
    np.testing.assert_allclose(item["label"][0], expected, atol=1e-5)


def test_augmentation_moves_composite_and_mask_alike_in_training_alone(work: Path) -> None:
    plain, data = data_of(work), data_of(work, augmentation=RandFlipd(["label", "mask"], 1.0, spatial_axis=1))
    index = SampleIndex(3, 0)
    for key in ("label", "mask"):
        assert torch.equal(data.train[index][key], plain.train[index][key].flip(-1))
    assert torch.equal(data.train[index]["image"], plain.train[index]["image"])
    assert torch.equal(data.val[SampleIndex(0, 0)]["label"], plain.val[SampleIndex(0, 0)]["label"])


def test_fewer_composites_are_drawn(work: Path) -> None:
    data = data_of(work, most=5)
    assert len(data.train.first) == 4 and len(data.val.first) == 1
    assert set(data.train.first.numbers) != {0, 1, 2, 3}


def test_a_patient_of_the_generation_is_named(tmp_path: Path) -> None:
    others = slice_bank(["x", "y", "b"], 1, [0])
    for bank in (nodule_bank(["a", "b"]), slice_bank(["b"], 2, [0])):
        used = bank.save(tmp_path / type(bank).__name__)
        with pytest.raises(UserError, match=r"others: patient b is in .*Bank too"):
            check_no_shared_patients(others.records, "others", [used])
    assert patients_of(tmp_path / "NoduleBank") == {"a", "b"}


def test_a_slice_without_a_patient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no patient"):
        check_no_shared_patients(slice_bank([""], 1, [0]).records, "others", [])
    with pytest.raises(UserError, match="no bank here"):
        check_no_shared_patients(slice_bank(["x"], 1, [0]).records, "others", [tmp_path])


def test_refusals(work: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 patient; at least 2"):
        data_of(work, real_dir=slice_bank(["m"], 3, [0]).save(tmp_path / "one"))
    bank = slice_bank(["m", "n"], 1, [0])
    halves = SliceBank(bank.hu[:, ::2, ::2], bank.lung[:, ::2, ::2], bank.nodules[:, ::2, ::2], bank.records)
    with pytest.raises(UserError, match=r"slices of \(16, 16\) pixels, composites of \(32, 32\)"):
        data_of(work, real_dir=halves.save(tmp_path / "small"))


WINDOW = Window(-1000, 400)
HU = np.array([[[-2000, -1000, -301], [400, 399, 1500]]], np.int16)


def test_the_window_becomes_the_range() -> None:
    images = network_input(HU, WINDOW)
    assert images.shape == (1, 1, 2, 3) and images.dtype == torch.float32
    torch.testing.assert_close(images[0, 0, :, 0], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(images[0, 0, 0, 2], torch.tensor((699 / 1400) * 2 - 1))


def test_what_the_window_cuts_off_comes_back() -> None:
    np.testing.assert_array_equal(to_changed_hu(network_input(HU, WINDOW), HU, WINDOW), HU)


def test_a_change_is_one_of_hu_outside_of_the_window_too() -> None:
    changed = to_changed_hu(network_input(HU, WINDOW).clamp(-0.9, 0.9), HU, WINDOW)
    assert changed.tolist() == [[[-1930, -930, -301], [330, 330, 1430]]]
