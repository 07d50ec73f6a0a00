from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from common.data.phantoms.anatomy import draw_anatomy
from common.data.phantoms.contrast import BLOOD_HU, enhanced, native
from common.data.phantoms.heart import LA, LV, MYO, RV
from common.data.phantoms.phantom import Phantom, make_phantom
from common.random import generator

SHAPE = (96, 96, 12)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(0, 2, SHAPE, contrasts=True)


def inside(phantom: Phantom, value: int) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(phantom.labels["heart"] == value, np.ones((3, 3, 1))))


def test_the_enhanced_scan_is_the_same_with_and_without_its_partner(phantom: Phantom) -> None:
    alone = make_phantom(0, 2, SHAPE)
    assert alone.native is None
    assert alone.image.tobytes() == phantom.image.tobytes()
    assert all(alone.labels[name].tobytes() == label.tobytes() for name, label in phantom.labels.items())


def test_the_native_scan_is_repeatable(phantom: Phantom) -> None:
    again = make_phantom(0, 2, SHAPE, contrasts=True)
    assert phantom.native is not None and again.native is not None
    assert phantom.native.dtype == np.int16
    assert phantom.native.tobytes() == again.native.tobytes()


def test_contrast_agent_shows_in_blood_and_hardly_in_muscle(phantom: Phantom) -> None:
    assert phantom.native is not None
    blood, plain = (
        [np.median(scan[inside(phantom, value)]) for value in (LV, LA, RV)] for scan in scans(phantom)
    )
    assert blood == pytest.approx(
        [phantom.anatomy.blood_left_hu] * 2 + [phantom.anatomy.blood_right_hu], abs=12
    )
    assert all(BLOOD_HU[0] - 4 < value < BLOOD_HU[1] + 4 for value in plain)
    wall = phantom.labels["heart"] == MYO
    assert abs(np.median(phantom.native[wall]) - 47) < 8 < np.median(phantom.image[wall]) - 60


def scans(phantom: Phantom) -> tuple[np.ndarray, np.ndarray]:
    assert phantom.native is not None
    return phantom.image, phantom.native


def test_all_else_is_alike_but_for_the_noise(phantom: Phantom) -> None:
    """Bone, muscle, fat and air lie at the same voxels: the difference is noise without a mean."""
    image, plain = (scan.astype(float) for scan in scans(phantom))
    bone = (image > 350) & (phantom.labels["heart"] == 0) & (plain > 250)
    air = ndimage.binary_erosion((phantom.labels["lung"] > 0) & (plain < -750), np.ones((3, 3, 1)))
    for region in (bone, air):
        assert np.count_nonzero(region) > 500
        assert abs(np.median((image - plain)[region])) < 8
    outside = ndimage.binary_erosion(image < -950, np.ones((5, 5, 1))) & (phantom.labels["lung"] == 0)
    assert image[outside].std() == pytest.approx(plain[outside].std(), rel=0.05)
    assert abs(np.corrcoef(image[outside], plain[outside])[0, 1]) < 0.05


def test_native_blood_is_drawn_for_each_patient() -> None:
    first, second = (native(generator(0, "phantom", patient, "native")) for patient in (0, 1))
    assert first != second
    assert first.left_blood == first.right_blood == first.great_veins
    agent = enhanced(draw_anatomy(0, 0))
    assert agent.left_blood > 3 * first.left_blood and agent.liver > first.liver
