from __future__ import annotations

import json

import numpy as np
import pytest

from common.data.intensity import LUNG_HU, TISSUE_HU, WINDOWS, Standardiser, slice_peaks
from common.errors import UserError

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
