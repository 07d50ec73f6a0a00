from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.augment import Augmentation
from common.data.nodule_layouts import NoduleSample, find_nodule_scans
from common.data.nodule_slices import Balance, NoduleSlices
from common.data.sampling import Draw
from common.errors import UserError
from tests.common.data.made_scans import HEADER, write_luna, write_picture, write_volume

SIZE = 16


@pytest.fixture
def scans(tmp_path: Path) -> list[NoduleSample]:
    """Three scans of 32 x 40 x 20 voxels, each with a bright nodule of 4 x 4 pixels in 3 slices."""
    for number in range(3):
        hu, mask = np.full((32, 40, 20), -900), np.zeros((32, 40, 20))
        mask[20:24, 8 + number : 12 + number, 5:8] = 1
        hu[mask > 0] = 400
        write_volume(tmp_path, f"p{number}", hu, mask)
    return find_nodule_scans(tmp_path)


def test_slices_are_balanced(scans: list[NoduleSample]) -> None:
    data = NoduleSlices(scans, SIZE, balance=(0.5, 0.7))
    has = [bool(part.mask.any()) for part in data.slices]
    assert sum(has) == 9 and len(has) == 18 and data.dropped == 60 - 18
    assert not data.nominal_hu
    assert [part.sample.index for part in data.slices[:6]] != list(range(6))
    assert {sample.index for sample in data.samples if sample.patient == "p1"} >= {5, 6, 7}
    again = NoduleSlices(scans, SIZE, balance=(0.5, 0.7))
    assert again.samples == data.samples
    other = NoduleSlices(scans, SIZE, balance=(0.5, 0.7), seed=1)
    assert other.samples != data.samples
    assert len(NoduleSlices(scans, SIZE, balance=(0.0, 0.7))) == 9
    assert len(NoduleSlices(scans, SIZE, balance=(0.9, 0.7))) == 60  # there are no more


def test_patches_show_the_nodule_as_often_as_asked(scans: list[NoduleSample]) -> None:
    data = NoduleSlices(scans, SIZE, balance=(0.0, 0.7))
    shown = [bool(data[Draw(epoch, sample)]["label"].any()) for epoch in range(40) for sample in range(9)]
    # The others go anywhere; a window of 16 x 16 in 40 x 32 meets the nodule rarely, and is within 0.05 here.
    assert 0.7 < np.mean(shown) < 0.9
    always = NoduleSlices(scans, SIZE, balance=(0.0, 1.0))
    assert all(always[Draw(epoch, 0)]["label"].any() for epoch in range(40))
    corners = {tuple(np.argwhere(always[Draw(epoch, 0)]["label"][0].numpy())[0]) for epoch in range(40)}
    assert len(corners) > 20  # not always in the middle


def test_items(scans: list[NoduleSample]) -> None:
    data = NoduleSlices(scans, SIZE, window=[-1000, 400], augment=Augmentation(rotation=20), seed=3)
    item = data[1]
    assert item["image"].shape == item["label"].shape == (1, SIZE, SIZE)
    assert item["image"].dtype == item["label"].dtype == torch.float32 and item["sample"] == 1
    assert item["image"].unique().tolist() == pytest.approx([2 * 100 / 1400 - 1, 1.0])
    assert torch.equal(item["label"] > 0, item["image"] == 1.0)
    assert torch.equal(data[1]["image"], item["image"])  # an index always gives the same
    first, second = data[Draw(0, 1)], data[Draw(0, 1)]
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], data[Draw(1, 1)]["image"])
    overlap = (first["label"] > 0) & (first["image"] > 0)
    assert overlap.sum() > 0.6 * (first["label"] > 0).sum()  # image and mask move together


def test_slices_smaller_than_the_patch_are_surrounded_by_air(tmp_path: Path) -> None:
    image, mask = np.full((10, 12), 128), np.zeros((10, 12))
    mask[4:6, 4:6] = 1
    write_picture(tmp_path, "a_1", image, mask)
    data = NoduleSlices(find_nodule_scans(tmp_path), SIZE)
    assert data.nominal_hu
    for visit in (0, Draw(0, 0)):
        item = data[visit]
        assert (item["image"] > -1).sum() == 120 and item["label"].sum() == 4
        rows, columns = np.nonzero(item["image"][0].numpy() > -1)
        assert (rows.min(), columns.min()) == (3, 2)


def test_settings_out_of_range(scans: list[NoduleSample], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"normal_share 1\.0: give a share"):
        Balance(1.0, 0.5).checked()
    with pytest.raises(UserError, match=r"foreground -0\.1: give a share"):
        Balance(0.5, -0.1).checked()
    write_picture(tmp_path / "empty", "a_1", np.ones((8, 8)), np.zeros((8, 8)))
    with pytest.raises(UserError, match="no slice has a nodule"):
        NoduleSlices(find_nodule_scans(tmp_path / "empty"), SIZE)


def test_slices_with_an_excluded_finding_come_only_where_there_are_no_others(tmp_path: Path) -> None:
    """Eight slices 2 mm apart from 30 mm on: a nodule of 5 mm in 2 to 4, findings in 6, or in all others."""
    folder = write_luna(tmp_path, "1.2,15,26,36,5\n")

    def normal(*places: str) -> list[int]:
        lines = "".join(f"1.2,12,22,{z},{size}\n" for z, size in (place.split() for place in places))
        (folder / "annotations_excluded.csv").write_text(HEADER + lines)
        data = NoduleSlices(find_nodule_scans(folder), SIZE, balance=(0.8, 0.7))
        return [int(s.sample.index) for s in data.slices if not s.mask.any()]

    assert normal() == [0, 1, 5, 6, 7]
    assert normal("42 1") == [0, 1, 5, 7]
    assert normal("36 40") == normal()
