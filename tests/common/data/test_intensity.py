from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data.intensity import (
    CROP_LUNG_HU,
    CROP_TISSUE_HU,
    LUNG_HU,
    TISSUE_HU,
    WINDOWS,
    Standardiser,
    Window,
    from_network,
    hu_by_levels,
    levels_of,
    slice_peaks,
    to_hu,
    to_network,
    to_unit,
    window_by_name,
)
from common.errors import UserError


def test_hu_within_the_window() -> None:
    unit = to_unit(np.array([-2000, -1000, -300, 400, 3000]), WINDOWS["lung"], is_hu=True)
    assert unit.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0] and unit.dtype == np.float32


def test_gray_files_ignore_the_window() -> None:
    assert to_unit(np.array([0, 51, 255]), WINDOWS["bone"], is_hu=False).tolist() == pytest.approx(
        [0, 0.2, 1]
    )
    assert to_unit(np.array([0, 65535]), WINDOWS["bone"], False, (0, 65535)).tolist() == [0, 1]
    assert to_unit(np.array([100, 300]), WINDOWS["bone"], False, (100, 500)).tolist() == [0, 0.5]


def test_there_and_back() -> None:
    hu = np.array([-1000, -861, 0, 37, 400], np.int16)
    unit = to_unit(hu, WINDOWS["lung"], is_hu=True)
    assert to_hu(from_network(to_network(unit)), WINDOWS["lung"]).tolist() == hu.tolist()
    assert to_network(np.array([0.0, 1.0])).tolist() == [-1.0, 1.0]


def test_windows_by_name_and_by_numbers() -> None:
    assert window_by_name("lung") == Window(-1000, 400) == window_by_name([-1000, 400])
    with pytest.raises(UserError, match="mediastinum"):
        window_by_name("lungs")
    with pytest.raises(UserError, match="below"):
        window_by_name([400, -1000])


LUNG = (LUNG_HU + 1000) / 1400
TISSUE = (TISSUE_HU + 1000) / 1400


def chest(lung: float, tissue: float, lung_share: float = 0.5, ill: float = 0.0, seed: int = 0) -> np.ndarray:
    """Two gray levels with noise; the share ``ill`` of the lung is ground glass, half way between."""
    rows = np.linspace(0, 1, 64)[:, None] * np.ones((1, 64))
    image = np.where(rows < lung_share, lung, tissue)
    image = np.where(rows < lung_share * ill, (lung + tissue) / 2, image)
    return np.clip(image + np.random.default_rng(seed).normal(0, 0.01, image.shape), 0, 1).astype(np.float32)


def levels(image: np.ndarray, lung_share: float = 0.5) -> tuple[float, float]:
    edge = int(64 * lung_share)
    return float(np.median(image[edge - 8 : edge - 1])), float(np.median(image[edge + 2 :]))


def test_peaks_do_not_depend_on_the_share_of_lung() -> None:
    for share in (0.2, 0.5, 0.8):
        assert slice_peaks(chest(0.2, 0.85, share)) == pytest.approx((0.2, 0.85), abs=0.02)


def test_clipped_tissue_is_white() -> None:
    assert slice_peaks(chest(0.3, 1.2))[1] > 0.99


@pytest.mark.parametrize(("lung", "tissue"), [(0.05, 0.35), (0.3, 0.95), (0.2, 0.8)])
def test_landmarks_bring_any_window_to_the_same_levels(lung: float, tissue: float) -> None:
    standardiser = Standardiser("landmarks", WINDOWS["lung"])
    assert levels(standardiser.apply(chest(lung, tissue))) == pytest.approx((LUNG, TISSUE), abs=0.02)


def test_a_scan_lends_its_lung_level_to_its_ill_slices() -> None:
    scan = [chest(0.2, 0.8, seed=k) for k in range(3)] + [chest(0.2, 0.8, ill=1.0, seed=9)]
    ill = Standardiser("landmarks", WINDOWS["lung"]).apply_scan(scan)[-1]
    assert levels(ill)[0] == pytest.approx((LUNG + TISSUE) / 2, abs=0.03)


def test_slices_scaled_by_their_own_maximum_come_out_alike() -> None:
    scan = [chest(0.1 * gain, 0.5 * gain, seed=k) for k, gain in enumerate((1.0, 1.3, 0.9))]
    result = Standardiser("landmarks", WINDOWS["lung"]).apply_scan(scan)
    assert np.ptp([levels(image) for image in result], axis=0) == pytest.approx([0, 0], abs=0.02)


def test_a_single_ill_slice_is_held_to_the_ratios_of_training() -> None:
    healthy = {str(k): [chest(0.2, 0.8, seed=k)] for k in range(3)}
    fitted = Standardiser("landmarks", WINDOWS["lung"]).fit(healthy)
    assert fitted.ratios == pytest.approx((0.225, 0.275), abs=0.02)
    ill = fitted.apply(chest(0.2, 0.8, ill=1.0))
    assert levels(ill)[0] > LUNG + 0.2


def test_histogram_matches_the_training_quantiles() -> None:
    fitted = Standardiser("histogram", WINDOWS["lung"]).fit({"a": [chest(0.2, 0.8)], "b": [chest(0.3, 0.9)]})
    assert levels(fitted.apply(chest(0.05, 0.35))) == pytest.approx((0.25, 0.85), abs=0.03)


@pytest.mark.parametrize("method", ["none", "landmarks", "histogram"])
def test_the_state_is_json_and_complete(method: str) -> None:
    fitted = Standardiser(method, WINDOWS["lung"]).fit({"a": [chest(0.2, 0.8)]})
    again = Standardiser.from_state(json.loads(json.dumps(fitted.state())))
    assert np.array_equal(fitted.apply(chest(0.1, 0.4)), again.apply(chest(0.1, 0.4)))


def test_a_flat_slice_is_no_error() -> None:
    assert np.isfinite(Standardiser("landmarks", WINDOWS["lung"]).apply(np.zeros((8, 8), np.float32))).all()


def test_unknown_method() -> None:
    with pytest.raises(UserError, match="landmarks"):
        Standardiser("landmark", WINDOWS["lung"])


def stretched_chest() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """HU of a wall (fat, muscle and a rib), lung, a nodule, and the outside of the scan."""
    random = np.random.default_rng(0)
    hu = np.full((128, 128), CROP_LUNG_HU)
    hu[:, 90:] = -100.0
    hu[:, 98:] = CROP_TISSUE_HU
    hu[40:60, 104:110] = 800.0
    rows, columns = np.mgrid[:128, :128]
    nodule = (rows - 60) ** 2 + (columns - 50) ** 2 < 36
    hu[nodule] = -20.0
    hu += random.normal(0, 25, hu.shape)
    hu[110:, 115:] = -2000.0
    return hu, nodule


@pytest.mark.parametrize("span", [(-1200.0, 1000.0), (-2000.0, 3000.0)])
def test_a_stretched_picture_gets_its_hu_back(span: tuple[float, float]) -> None:
    hu, nodule = stretched_chest()
    gray = np.rint((hu.clip(*span) - span[0]) / (span[1] - span[0]) * 255)
    found = hu_by_levels(gray, nodule, WINDOWS["lung"])
    assert np.median(found[20:100, 10:40]) == pytest.approx(CROP_LUNG_HU, abs=15)
    assert np.median(found[70:100, 100:]) == pytest.approx(CROP_TISSUE_HU, abs=35)  # not fat
    assert found[nodule].mean() == pytest.approx(-20, abs=35)


def test_a_picture_of_lung_alone_has_no_levels() -> None:
    gray = np.full((64, 64), 100.0)
    gray[0, 0] = 0
    assert levels_of(gray, np.zeros(gray.shape, bool)) is None
    found = hu_by_levels(gray, np.zeros(gray.shape, bool), WINDOWS["lung"])
    assert found[0, 0] == -1000 and found[5, 5] == 400
