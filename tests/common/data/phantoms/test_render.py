from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from common.data.phantoms.anatomy import draw_anatomy
from common.data.phantoms.chest import AO, HEART_LABELS, LA, LV, MYO, PA, RA, RV
from common.data.phantoms.render import BLOOD_HU, Phantom, enhanced_densities, make_phantom, native_densities
from common.errors import UserError
from common.rng import make_rng

SHAPE = (64, 64, 12)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(0, patient, SHAPE) for patient in range(6)]


def middle(mask: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(mask))


def test_same_seed_gives_same_bytes(phantoms: list[Phantom]) -> None:
    again = make_phantom(0, 3, SHAPE)
    assert again.image.tobytes() == phantoms[3].image.tobytes()
    assert all(again.labels[name].tobytes() == phantoms[3].labels[name].tobytes() for name in again.labels)
    assert again.anatomy == phantoms[3].anatomy
    assert again.image.dtype == np.int16 and again.image.shape == SHAPE
    assert set(again.labels) == {"lung", "lesion", "nodule", "heart"}
    assert all(label.dtype == np.uint16 and label.shape == SHAPE for label in again.labels.values())
    assert again.spacing == (5.625, 5.625, 20.0)


def test_patients_and_seeds_differ(phantoms: list[Phantom]) -> None:
    other_seed = make_phantom(1, 3, SHAPE)
    for other in (phantoms[2], other_seed):
        assert np.mean(other.image != phantoms[3].image) > 0.3
        assert not np.array_equal(other.labels["lung"], phantoms[3].labels["lung"])
        assert not np.allclose(other.affine, phantoms[3].affine)


def test_the_anatomy_does_not_depend_on_the_voxel_size() -> None:
    coarse, fine = make_phantom(0, 4, (32, 32, 16)), make_phantom(0, 4, (64, 64, 32))
    for name, tolerance in (("lung", 0.05), ("heart", 0.1), ("lesion", 0.1)):
        litres = [np.count_nonzero(p.labels[name]) * np.prod(p.spacing) / 1e6 for p in (coarse, fine)]
        assert litres[0] == pytest.approx(litres[1], rel=tolerance), name


def test_lesions_and_nodules_lie_in_the_lung_and_apart(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        lung, lesion, nodule = (phantom.labels[name] > 0 for name in ("lung", "lesion", "nodule"))
        assert not np.any(lesion & ~lung)
        assert not np.any(nodule & ~lung)
        assert not np.any(lesion & nodule)
        assert not np.any(lung & (phantom.labels["heart"] > 0))
    assert {1, 2} <= set(np.unique(np.concatenate([p.labels["lesion"].ravel() for p in phantoms])))
    assert {1, 2, 3} <= set(np.unique(np.concatenate([p.labels["nodule"].ravel() for p in phantoms])))


def test_lesions_prefer_the_back_of_the_lung(phantoms: list[Phantom]) -> None:
    total = sum((p.labels["lesion"] > 0).sum() for p in phantoms)
    behind = sum((middle(p.labels["lesion"] > 0)[1] > middle(p.labels["lung"] > 0)[1]) for p in phantoms)
    assert total > 100
    assert behind >= 5


def test_lesion_volume_varies_from_patient_to_patient(phantoms: list[Phantom]) -> None:
    shares = [(p.labels["lesion"] > 0).sum() / (p.labels["lung"] > 0).sum() for p in phantoms]
    assert max(shares) > 4 * (min(shares) + 0.005)
    assert max(shares) < 0.6


def test_switches_leave_lesions_and_nodules_out(phantoms: list[Phantom]) -> None:
    bare = make_phantom(0, 4, SHAPE, with_lesions=False, with_nodules=False)
    assert not bare.labels["lesion"].any() and not bare.labels["nodule"].any()
    full = phantoms[4]
    outside = full.labels["lung"] == 0
    edge = ndimage.binary_dilation(~outside, iterations=3)
    assert np.array_equal(bare.image[~edge], full.image[~edge])


def test_heart_has_all_seven_structures_in_their_places(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        heart = phantom.labels["heart"]
        assert tuple(sorted(np.unique(heart)[1:])) == HEART_LABELS == (205, 420, 500, 550, 600, 820, 850)
        at = {value: middle(heart == value) for value in HEART_LABELS}
        assert at[RA][0] < at[LV][0]  # axis 0 runs to the patient's left
        assert at[RV][1] < at[LA][1]  # axis 1 runs to the back
        assert at[LV][2] < at[PA][2] and at[LV][2] < at[AO][2]  # axis 2 runs to the head
        assert np.linalg.norm(at[LV] - at[MYO]) < 4


def test_the_heart_lies_to_the_left_and_the_liver_below_the_right_lung(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        lung = phantom.labels["lung"]
        assert middle(lung == 1)[0] < middle(lung == 2)[0]
        right, left = (np.count_nonzero(lung == side) for side in (1, 2))
        assert 0.75 < right / left < 1.6
        low = phantom.image[:, :, 0]
        assert 70 < np.median(low[16:28, 28:36]) < 140


@pytest.mark.parametrize("patient", range(4))
def test_tissues_have_their_hounsfield_units(patient: int) -> None:
    phantom = make_phantom(0, patient, (128, 128, 8))
    image, labels = phantom.image, phantom.labels
    parenchyma = ndimage.binary_erosion((labels["lung"] > 0) & (labels["lesion"] == 0), np.ones((3, 3, 1)))
    assert -900 < np.median(image[parenchyma]) < -790
    assert np.median(image[:2]) == pytest.approx(-1000, abs=15)
    assert image.min() >= -1024 and image.max() <= 3071 and image.max() > 400
    blood = ndimage.binary_erosion(labels["heart"] == LV, np.ones((3, 3, 1)))
    assert np.median(image[blood]) == pytest.approx(phantom.anatomy.blood_left_hu, abs=15)
    muscle = ndimage.binary_erosion(labels["heart"] == MYO, np.ones((2, 2, 1)))
    assert 60 < np.median(image[muscle]) < 180


def test_lesion_classes_have_their_hounsfield_units(phantoms: list[Phantom]) -> None:
    for kind, low, high in ((1, -720, -450), (2, -150, 60)):
        values = np.concatenate([phantom.image[phantom.labels["lesion"] == kind] for phantom in phantoms])
        assert low < np.median(values) < high


def test_spine_and_ribs_are_bone_and_symmetric(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        bone = (phantom.image > 330) & (phantom.labels["heart"] == 0)
        assert bone[28:36, 36:54].any(axis=(0, 1)).mean() > 0.8  # vertebrae behind, in the middle
        right, left = np.count_nonzero(bone[:24]), np.count_nonzero(bone[40:])
        assert right > 50 and 0.6 < right / left < 1.7


def test_no_bone_sticks_out_of_the_skin() -> None:
    for patient in range(3):
        image = make_phantom(0, patient, (96, 96, 8)).image
        outside = np.zeros(image.shape, bool)
        for number in range(image.shape[2]):
            parts, _ = ndimage.label(image[:, :, number] < -500)
            outside[:, :, number] = parts == parts[0, 0]
        assert not np.any((image > 330) & ndimage.binary_dilation(outside, np.ones((3, 3, 1))))


def test_parts_of_the_heart_are_next_to_each_other() -> None:
    heart = make_phantom(2, 0, (96, 96, 24), False, False).labels["heart"]
    ring = ndimage.binary_dilation(heart == LV, iterations=2) & (heart != LV)
    assert np.mean(heart[ring] == MYO) > 0.5
    assert ndimage.label(heart == LA)[1] <= 3


@pytest.mark.parametrize("shape", [(64, 64), (64, 64, 4), (64.5, 64, 8)])
def test_bad_shape_is_one_line(shape: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="whole numbers"):
        make_phantom(0, 0, shape)  # type: ignore[arg-type]


SHAPE_CONTRAST = (96, 96, 12)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom(0, 2, SHAPE_CONTRAST, contrasts=True)


def inside(phantom: Phantom, value: int) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(phantom.labels["heart"] == value, np.ones((3, 3, 1))))


def test_the_enhanced_scan_is_the_same_with_and_without_its_partner(phantom: Phantom) -> None:
    alone = make_phantom(0, 2, SHAPE_CONTRAST)
    assert alone.native is None
    assert alone.image.tobytes() == phantom.image.tobytes()
    assert all(alone.labels[name].tobytes() == label.tobytes() for name, label in phantom.labels.items())


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
    first, second = (native_densities(make_rng(0, "phantom", patient, "native")) for patient in (0, 1))
    assert first != second
    assert first.left_blood == first.right_blood == first.great_veins
    agent = enhanced_densities(draw_anatomy(0, 0))
    assert agent.left_blood > 3 * first.left_blood and agent.liver > first.liver
