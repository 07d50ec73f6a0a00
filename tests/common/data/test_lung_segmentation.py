from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.lung_segmentation import (
    close_slice,
    components,
    fill_slice,
    otsu,
    segment_lung_part,
    segment_lung_slice,
    segment_lungs,
    touching_rim,
)
from common.data.phantoms.render import make_phantom
from common.data.volume_io import open_volume
from common.errors import UserError


def test_closing_fills_what_is_narrower_than_the_disc() -> None:
    """A slot of 4 mm is closed by a radius of 3 mm, one of 8 mm is not; pixels are 1 by 2 mm."""
    mask = np.zeros((40, 20), bool)
    mask[5:35, 3:17] = True
    mask[10:14, 3:12] = mask[20:28, 3:12] = False
    closed = close_slice(mask, 3.0, (1.0, 2.0))
    assert closed[10:14, 4:12].all() and not closed[23:25, 4:8].any()
    assert not (closed & ~mask)[:, 17:].any() and not closed[:5].any()


def test_closing_does_not_leave_the_slice() -> None:
    mask = np.ones((6, 6), bool)
    assert close_slice(mask, 4.0, (1.0, 1.0)).all()


def test_regions_at_the_rim_are_found_in_each_slice_alone() -> None:
    mask = np.zeros((2, 6, 6), bool)
    mask[0, :2, :2] = mask[0, 3, 3] = mask[1, 1, 1] = True
    rim = touching_rim(mask)
    assert rim[0, :2, :2].all() and rim.sum() == 4


def test_components_are_counted_without_the_background() -> None:
    labels, sizes = components(np.array([[[True, True, False, True]]]))
    assert sizes.tolist() == [0, 2, 1] and labels.max() == 2


def test_small_holes_are_filled_and_large_ones_stay() -> None:
    """Pixels of 5 by 10 mm: a hole of 2 cm2 and one of 4.5."""
    mask = np.ones((20, 20), bool)
    mask[2:4, 2:4] = mask[10:13, 10:13] = False
    filled = fill_slice(mask, 3.0, (5.0, 10.0))
    assert filled[2:4, 2:4].all() and not filled[10:13, 10:13].any() and filled.sum() == 391


def part() -> tuple[np.ndarray, np.ndarray]:
    """60 x 50 mm of lung with a vessel and a nodule beside 15 mm of chest wall with a bubble of gas."""
    random = np.random.default_rng(0)
    hu = random.normal(-850, 30, (60, 65))
    hu[:, 50:] = random.normal(40, 30, (60, 15))
    hu[20:23, :] = 30  # a vessel from the wall right through
    hu[40:46, 10:16] = 50  # a nodule
    hu[5:9, 55:59] = -900  # 0.16 cm2 of gas
    expected = np.zeros(hu.shape, np.uint8)
    expected[:, :50] = 1
    return hu, expected


def test_vessels_and_nodules_belong_to_the_lung_and_the_wall_does_not() -> None:
    hu, expected = part()
    found = segment_lung_part(hu, 1.0)
    assert found.dtype == np.uint8 and (found != expected).mean() < 0.01
    assert found[41:45, 11:15].all() and not found[:, 52:].any()


def test_a_picture_of_unknown_window_gets_a_threshold_of_its_own() -> None:
    """All lung is above -400 in this one."""
    hu, expected = part()
    lighter = -1000 + (hu + 1000) * 0.5 + 550
    assert not segment_lung_part(lighter, 1.0).any()
    assert (segment_lung_part(lighter, 1.0, nominal_hu=True) != expected).mean() < 0.02


def test_soft_tissue_alone_has_none() -> None:
    assert not segment_lung_part(np.full((20, 20), 40), 1.0).any()


AIR, LUNG, TISSUE = -1000, -850, 40
SIDE, MM = 160, 2.0


def disc(row: float, column: float, radius_mm: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] * MM
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius_mm**2


def drawn_slice() -> tuple[np.ndarray, np.ndarray]:
    """A body 300 mm wide on a table, two lungs, a trachea, a nodule at the right pleura and one inside."""
    hu = np.full((SIDE, SIDE), AIR, np.int16)
    hu[disc(150, 160, 145)] = TISSUE
    hu[148:151, 10:150] = 200
    truth = np.zeros((SIDE, SIDE), np.uint8)
    truth[disc(150, 95, 55)], truth[disc(150, 230, 50)] = 1, 2
    hu[truth > 0] = LUNG
    hu[disc(120, 162, 9)] = AIR
    hu[disc(150, 46, 7)] = hu[disc(160, 230, 8)] = TISSUE
    return hu, truth


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def phantom_dice(seed: int, patient: int, shape: tuple[int, int, int]) -> list[float]:
    """Dice of both lungs together, of the right and of the left one."""
    phantom = make_phantom(seed, patient, shape)
    hu, truth = phantom.image.transpose(2, 1, 0), phantom.labels["lung"].transpose(2, 1, 0)
    found = segment_lungs(hu, phantom.spacing[::-1])
    return [overlap(found > 0, truth > 0)] + [overlap(found == side, truth == side) for side in (1, 2)]


def test_a_drawn_slice_is_found_with_its_nodules_and_without_the_trachea() -> None:
    hu, truth = drawn_slice()
    found = segment_lung_slice(hu, MM)
    for side in (1, 2):
        assert overlap(found == side, truth == side) > 0.98
    assert (found[disc(160, 230, 8)] == 2).all()
    assert (found[disc(150, 46, 7) & (truth == 1)] == 1).mean() > 0.7  # all but the outermost pixels
    assert (found[disc(120, 162, 10)] == 0).all() and (found[:4] == 0).all() and (found[151:] == 0).all()


def test_without_closing_the_nodule_at_the_pleura_is_lost() -> None:
    hu, truth = drawn_slice()
    found = segment_lungs(hu[None], (1, MM, MM), closing_mm=0.5)[0]
    assert (found[disc(150, 46, 5) & (truth == 1)] == 0).all()


def test_lungs_that_touch_are_parted_where_they_are_narrow() -> None:
    hu, truth = drawn_slice()
    hu[70:74, 70:92] = LUNG  # an anterior junction with no visible wall
    found = segment_lung_slice(hu, MM)
    assert overlap(found == 1, truth == 1) > 0.96 and overlap(found == 2, truth == 2) > 0.96


def test_one_lung_alone_is_the_one_of_its_side() -> None:
    hu, truth = drawn_slice()
    hu[truth == 1] = TISSUE
    found = segment_lung_slice(hu, MM)
    assert overlap(found == 2, truth == 2) > 0.98 and not (found == 1).any()


def test_pictures_of_any_window_with_a_white_frame_are_segmented() -> None:
    """An unknown window (here lung at 0.35, tissue at 0.9 of the nominal one) and a frame of two pixels."""
    hu, truth = drawn_slice()
    shown = np.where(hu == LUNG, -500, np.where(hu == TISSUE, 260, np.where(hu == AIR, -900, 400)))
    shown[:2] = shown[-2:] = 400
    shown[:, :2] = shown[:, -2:] = 400
    found = segment_lung_slice(shown.astype(np.int16), MM, nominal_hu=True)
    for side in (1, 2):
        assert overlap(found == side, truth == side) > 0.97


def test_a_volume_loses_the_trachea_over_its_whole_length_and_the_gas_below() -> None:
    hu, truth = drawn_slice()
    stack = np.repeat(hu[None], 12, 0)
    stack[:4, :, :80] = np.where(truth[:, :80] == 1, TISSUE, stack[:4, :, :80])
    stack[:2][:, disc(150, 160, 15)] = AIR  # bowel
    found = segment_lungs(stack, (10.0, MM, MM))
    assert not found[:, disc(120, 162, 10)].any() and not found[:2, disc(150, 160, 15)].any()
    assert not (found[:4] == 1).any() and overlap(found[6] == 1, truth == 1) > 0.98


@pytest.mark.parametrize("content", [TISSUE, LUNG, AIR])
def test_no_lung_is_one_line(content: int) -> None:
    hu = np.full((4, 40, 40), content, np.int16)
    with pytest.raises(UserError, match=r"^ct\.mhd: no lung found"):
        segment_lungs(hu, (5.0, 8.0, 8.0), name="ct.mhd")


@pytest.mark.parametrize("patient", range(3))
def test_phantoms_lungs_are_found(patient: int) -> None:
    """Small ones; measured 0.970 to 0.989."""
    assert min(phantom_dice(0, patient, (64, 64, 24))) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "patients"), [((48, 48, 16), 12), ((128, 128, 24), 8), ((192, 192, 32), 3)]
)
def test_many_phantoms_lungs_are_found(shape: tuple[int, int, int], patients: int) -> None:
    assert np.min([phantom_dice(1, patient, shape) for patient in range(patients)]) >= 0.95


@pytest.mark.slow
@pytest.mark.realdata
def test_a_real_scans_lungs_are_plausible_and_hold_the_nodule(shared_data: Path) -> None:
    (scan,) = (shared_data / "luna").glob("*.mhd")
    volume = open_volume(scan)
    rows, columns, slices = volume.spacing
    found = segment_lungs(volume.array.transpose(2, 0, 1), (slices, rows, columns), name=str(scan))
    nodule = open_volume(shared_data / "luna" / "lidc0001_nodule_mask.nii.gz").array.transpose(2, 0, 1) > 0
    litres = [(found == side).sum() * rows * columns * slices / 1e6 for side in (1, 2)]
    assert 1.8 < litres[0] < 2.2 and 1.6 < litres[1] < 2.0  # 2.02 and 1.77
    assert (found[nodule] == 2).mean() > 0.98


def test_two_clusters_are_parted_between_them() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(-850, 30, 9000), random.normal(40, 20, 1000)])
    assert -750 < otsu(values) < -50


def test_far_clusters_are_parted_in_the_middle() -> None:
    assert otsu(np.array([0.0] * 70 + [100.0] * 30)) == pytest.approx(50, abs=1)


def test_a_constant_has_some_threshold() -> None:
    assert np.isfinite(otsu(np.full(10, 7.0)))
