from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.ndimage import label

from bundles.lung_two_stage.extraction.crops import (
    CropSettings,
    crop_nodule,
    extract_crops,
    make_crop_bank,
    signed_distance,
    smooth_distance,
    soft_alpha,
    spread_evenly,
)
from common.data.nodules import NoduleScan
from common.errors import UserError

RULES = CropSettings(crop_size=32, crop_mm=32.0, rim_mm=2.0, slices_per_nodule=2, least_mm=3.0)
KINDS = ("solid", "spiculated")


def ball(
    shape: tuple[int, int, int], spacing: tuple[float, ...], centre_mm: tuple[float, ...], radius: float
):
    grid = np.stack(
        np.meshgrid(*(np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)), indexing="ij")
    )
    return ((grid - np.reshape(centre_mm, (3, 1, 1, 1))) ** 2).sum(0) <= radius**2


def scan(spacing: tuple[float, float, float] = (4.0, 1.0, 0.5)) -> tuple[NoduleScan, np.ndarray]:
    """A solid ball of 6 mm radius and a spiculated one of 3 mm; 50 HU in lung of -850."""
    shape = (12, 60, 120)
    mask = np.zeros(shape, np.uint8)
    mask[ball(shape, spacing, (16, 20, 20), 6)] = 1
    mask[ball(shape, spacing, (36, 40, 45), 3)] = 2
    hu = np.where(mask > 0, 50, -850).astype(np.int16)
    return NoduleScan(hu, mask, spacing, "ct", "p1", (), KINDS), mask


def test_crops_have_one_scale_whatever_the_scans() -> None:
    """The ball of 6 mm covers a disc of 12 mm in a crop of 1 mm, from pixels of 1 by 0.5 mm."""
    crop, _ = extract_crops(*scan(), KINDS, CropSettings(32, 32.0, 2.0, slices_per_nodule=1))
    inside = crop.alpha >= 128
    assert 2 * np.sqrt(inside.sum() / np.pi) == pytest.approx(12, abs=0.7)
    assert np.ptp(np.argwhere(inside), axis=0).tolist() == [11, 11]
    assert np.allclose(np.argwhere(inside).mean(0), 15.5, atol=0.3)
    assert crop.hu[16, 16] == 50 and crop.hu[0, 0] == -850 and crop.alpha[0, 0] == 0


def test_each_nodule_gives_its_large_slices_and_its_category() -> None:
    result = list(extract_crops(*scan(), KINDS, RULES))
    records = [crop.record for crop in result]
    assert [(r.name, r.category) for r in records] == [
        ("ct-n01-z003", "solid"),
        ("ct-n01-z005", "solid"),
        ("ct-n02-z009", "spiculated"),
    ]
    assert {r.patient for r in records} == {"p1"} and {r.spacing_mm for r in records} == {1.0}
    assert records[2].diameter_mm == pytest.approx(6, abs=0.3)
    assert result[2].position == (9, pytest.approx(40), pytest.approx(90))
    one = CropSettings(32, 32.0, 2.0, slices_per_nodule=1)
    assert [crop.record.name for crop in extract_crops(*scan(), KINDS, one)] == ["ct-n01-z004", "ct-n02-z009"]


def test_without_categories_there_are_no_names_and_one_nodule_may_have_pieces() -> None:
    ct, mask = scan()
    settings = CropSettings(64, 100.0, 2.0, 1)
    result = list(extract_crops(ct, (mask > 0).astype(np.uint8), (), settings, single=True))
    assert [crop.record.category for crop in result] == [""]


def test_what_does_not_fit_is_counted() -> None:
    skipped: Counter[str] = Counter()
    small = CropSettings(16, 10.0, 2.0, 1, least_mm=7.0)
    assert not list(extract_crops(*scan(), KINDS, small, skipped=skipped))
    assert skipped == {"nodules larger than the crop": 1, "nodules below least_mm": 1}
    lung = np.zeros(scan()[1].shape, np.uint8)
    lung[:, :4, :4] = 1
    skipped.clear()
    assert len(list(extract_crops(*scan(), KINDS, RULES, lung=lung, skipped=skipped))) == 0
    assert skipped == {"nodules larger than the lung": 3}


def test_over_the_slices_end_the_lung_goes_on_but_not_the_nodule() -> None:
    hu = np.full((20, 20), -850, np.int16)
    hu[:, 10:] = -600
    inside = np.zeros((20, 20), bool)
    inside[9:12, :3] = True
    hu[inside] = 50
    cropped, alpha = crop_nodule(hu, inside, (1.0, 1.0), CropSettings(32, 32.0, 2.0))
    assert (cropped[:, :14] == -850).all() and (cropped[:, -5:] == -600).all() and not alpha[:, :14].any()
    for shown in (cropped > -500, alpha >= 128):
        assert label(shown)[1] == 1 and 6 <= shown.sum() <= 16


def test_signed_distances_are_to_the_border_between_pixels() -> None:
    inside = np.zeros((9, 9), bool)
    inside[:, :4] = True
    distance = signed_distance(inside, (2.0, 2.0))
    assert distance[4, 2:].tolist() == [3.0, 1.0, -1.0, -3.0, -5.0, -7.0, -9.0]


def test_smoothed_borders_keep_the_area_and_lose_their_corners() -> None:
    inside = np.zeros((24, 24), bool)
    inside[4:7, 4:7] = inside[12:20, 12:20] = True
    distance = smooth_distance(signed_distance(inside, (2.0, 2.0)))
    assert abs(int((distance > 0).sum()) - inside.sum()) <= 4
    assert distance[12, 12] < distance[12, 15] and (distance[4:7, 4:7] > 0).sum() >= 5


def test_alpha_is_a_half_on_the_border_and_soft_over_the_rim() -> None:
    assert soft_alpha(np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0]), 2.0).tolist() == [0, 0, 40, 128, 215, 255]


def test_banks_may_be_empty() -> None:
    bank = make_crop_bank([], RULES)
    assert bank.hu.shape == bank.alpha.shape == (0, 32, 32) and len(bank) == 0


@pytest.mark.parametrize(
    ("there", "most", "taken"), [(0, 3, []), (2, 3, [0, 1]), (9, 3, [0, 4, 8]), (5, 1, [0])]
)
def test_numbers_are_spread_evenly(there: int, most: int, taken: list[int]) -> None:
    assert spread_evenly(there, most) == taken


def test_settings_out_of_range_are_one_line() -> None:
    with pytest.raises(UserError, match="crop_size 0"):
        CropSettings(crop_size=0)
