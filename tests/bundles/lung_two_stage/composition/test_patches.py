"""Crops at another pixel size; laid on a lung they keep width and contrast, of discs and of LIDC-IDRI."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, label, zoom

from bundles.lung_two_stage.composition.patches import (
    FADE,
    MIXED_MM,
    NEIGHBOUR,
    NodulePatch,
    Outline,
    _component_at,
    estimate_noise,
    find_outline,
    high_pass,
    make_noise,
    make_patch,
)
from bundles.lung_two_stage.composition.render import blend
from bundles.lung_two_stage.extraction.crops import CropSettings, crop_nodule
from common.data.samples import ORIENTATIONS
from tests.bundles.lung_two_stage.composition.made import disc

CENTRE = np.array([20.0, 18.0])


def crop(radius: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """A disc of 40 HU in lung of -800 HU with a noise of 20."""
    mask = disc(41, (20, 18), radius)
    noise = 20 * make_noise(np.random.default_rng(0), 41)
    return (np.where(mask, 40, -800) + noise).astype(np.int16), mask.astype(np.uint8) * 255


def test_at_its_own_spacing_a_crop_stays_and_its_centre_is_the_middle() -> None:
    hu, alpha = crop()
    patch = make_patch(hu, alpha, CENTRE, 0.7, 0.7)
    half = patch.hu.shape[0] // 2
    mixed = np.s_[half - 8 : half + 9, half - 8 : half + 9]  # 6 pixels of nodule, 2 of blur
    np.testing.assert_allclose(patch.hu[mixed], hu[12:29, 10:27], atol=1e-3)
    np.testing.assert_array_equal(patch.inside[mixed], alpha[12:29, 10:27] > 0)
    assert patch.background == pytest.approx(-800, abs=4) and patch.noise == pytest.approx(20, rel=0.25)


def test_alpha_is_1_wherever_there_is_nodule_and_falls_to_0_beyond() -> None:
    patch = make_patch(*crop(), CENTRE, 0.7, 0.7)
    half = patch.hu.shape[0] // 2
    profile = patch.alpha[half, half:]  # the mask ends with pixel 6
    mixed = (MIXED_MM + 0.7) / 0.7  # pixels
    np.testing.assert_array_equal(profile[: int(6.5 + mixed) + 1], 1)
    np.testing.assert_array_equal(profile[int(np.ceil(6.5 + (1 + FADE) * mixed)) :], 0)
    assert (np.diff(profile) <= 0).all() and 0 < profile[10] < 1


@pytest.mark.parametrize("spacing_mm", [0.35, 0.5, 1.4, 2.1])
def test_the_area_in_mm_stays(spacing_mm: float) -> None:
    hu, alpha = crop()
    patch = make_patch(hu, alpha, CENTRE, 0.7, spacing_mm)
    assert patch.hu.shape == patch.alpha.shape == patch.inside.shape and patch.hu.shape[0] % 2 == 1
    area = (alpha > 0).sum() * 0.7**2
    assert patch.inside.sum() * spacing_mm**2 == pytest.approx(area, rel=0.3)  # whole pixels
    assert patch.outline.diameter_mm == pytest.approx(2 * np.sqrt(area / np.pi), rel=0.06)
    middle = patch.hu.shape[0] // 2
    rows, columns = np.nonzero(patch.inside)
    assert rows.mean() == pytest.approx(middle, abs=0.1) and columns.mean() == pytest.approx(middle, abs=0.1)
    assert patch.alpha[0].max() == patch.alpha[:, -1].max() == 0


def test_a_nodule_smaller_than_a_pixel_keeps_one_in_its_mask() -> None:
    hu, alpha = crop(radius=1)
    patch = make_patch(hu, alpha, CENTRE, 0.7, 3.5)
    assert np.argwhere(patch.inside).tolist() == [[patch.hu.shape[0] // 2] * 2]


def test_what_touches_the_nodule_ends_beside_it_and_does_not_count_as_lung() -> None:
    """A wall along the nodule: what lies farther from the mask than its blur is lung, of the lung's level."""
    hu, alpha = crop()
    hu[:, :12] = 60  # the mask begins with column 12
    patch = make_patch(hu, alpha, CENTRE, 0.7, 0.7)
    half = patch.hu.shape[0] // 2
    assert patch.hu[half, half - 7] == 60 and patch.background == pytest.approx(-800, abs=5)
    assert patch.hu[half, half - 10] == pytest.approx(-800, abs=60)
    np.testing.assert_allclose(patch.hu[half, half : half + 8], hu[20, 18:26], atol=1e-3)


def test_an_edge_is_no_grain() -> None:
    """What calming takes away must be noise: the grain of a sharp edge is ten times stronger."""
    patch = make_patch(*crop(), CENTRE, 0.7, 0.7)
    assert np.abs(patch.grain).max() < 6 * patch.noise < np.abs(high_pass(patch.hu)).max() / 2
    half = patch.hu.shape[0] // 2
    assert patch.grain[half - 3 : half + 4, half - 3 : half + 4].std() > 0.5 * patch.noise


def test_a_nodule_that_fills_its_crop_still_has_a_background() -> None:
    hu, alpha = crop(radius=60)
    hu[:8] = -700
    patch = make_patch(hu, alpha, CENTRE, 0.7, 0.7)
    assert patch.background == pytest.approx(-700, abs=60) and patch.noise == 0


def test_turning_turns_everything() -> None:
    hu, alpha = crop()
    hu[16, 18] = 1000
    patch = make_patch(hu, alpha, CENTRE, 0.7, 0.7)
    turned = patch.flip_rot(ORIENTATIONS["rot90"])  # counter-clockwise: the top becomes the left
    middle = patch.hu.shape[0] // 2
    assert patch.hu[middle - 4, middle] == turned.hu[middle, middle - 4] == 1000
    for name in ("alpha", "grain", "inside"):
        np.testing.assert_array_equal(getattr(turned, name), np.rot90(getattr(patch, name)))


SIDE = 61


def blurred(radius: float, pixels: float = 1.0, middle: float = 30.0) -> np.ndarray:
    """A disc of contrast 1 and that radius in pixels, blurred, its rim as fine as an eighth of a pixel."""
    fine = disc(SIDE * 8, (middle * 8 + 3.5, 30 * 8 + 3.5), radius * 8).astype(np.float32)
    return gaussian_filter(fine.reshape(SIDE, 8, SIDE, 8).mean((1, 3)), pixels)


def seen(contrast: np.ndarray, drawn: np.ndarray, pixel_mm: float = 0.7, noise: float = 0.0) -> Outline:
    near = disc(SIDE, (30, 30), 25)
    return find_outline(contrast.astype(np.float32), near, drawn, pixel_mm, noise)


@pytest.mark.parametrize("radius", [2.5, 4.3, 8.0, 14.2])
@pytest.mark.parametrize("pixel_mm", [0.4, 0.7, 1.4, 2.8])
def test_a_disc_is_as_wide_as_it_is(radius: float, pixel_mm: float) -> None:
    result = seen(850 * blurred(radius, 0.5), disc(SIDE, (30, 30), 2 * radius), pixel_mm)
    assert result.diameter_mm == pytest.approx(2 * radius * pixel_mm, rel=0.03)
    np.testing.assert_allclose(result.points.mean(axis=0), 30, atol=0.1)


def test_noise_and_a_generous_mask_do_not_widen_it() -> None:
    contrast = 850 * blurred(6) + 40 * make_noise(np.random.default_rng(0), SIDE)
    generous = seen(contrast, disc(SIDE, (30, 30), 11), noise=40)
    assert generous.diameter_mm == pytest.approx(12 * 0.7, rel=0.03)


def test_ground_glass_around_a_solid_part_belongs_to_it() -> None:
    """Half of the brightest would leave a disc of 3 pixels."""
    part_solid = 250 * blurred(12) + 600 * blurred(3)
    assert seen(part_solid, disc(SIDE, (30, 30), 12)).diameter_mm == pytest.approx(24 * 0.7, rel=0.04)


def test_of_two_the_one_that_was_drawn_and_holes_are_filled() -> None:
    contrast = 850 * (blurred(5, middle=20) - blurred(2, 0.5, middle=20) + blurred(7, middle=42))
    result = seen(contrast, disc(SIDE, (20, 30), 4))
    assert result.diameter_mm == pytest.approx(10 * 0.7, rel=0.04)
    np.testing.assert_allclose(result.points.mean(axis=0), [20, 30], atol=0.1)


def test_where_nothing_can_be_seen_the_mask_counts() -> None:
    drawn = disc(SIDE, (30, 30), 5)
    result = seen(np.zeros((SIDE, SIDE)), drawn)
    assert result.diameter_mm == pytest.approx(2 * np.sqrt(drawn.sum() / np.pi) * 0.7, rel=1e-6)
    np.testing.assert_allclose(result.points.mean(axis=0), 30, atol=1e-9)


def test_a_speck_of_noise_is_not_the_nodule() -> None:
    """Too faint to be seen, but for some pixels on which noise lies."""
    drawn = disc(SIDE, (30, 30), 2 / 0.7)
    for seed in range(8):
        contrast = 60 * blurred(2 / 0.7) + 10 * make_noise(np.random.default_rng(seed), SIDE)
        assert seen(contrast, drawn, noise=10).diameter_mm > 2


def test_what_lies_beside_the_mask_is_not_the_nodule() -> None:
    drawn = disc(SIDE, (20, 30), 4)
    result = seen(850 * blurred(7, middle=42), drawn)
    np.testing.assert_allclose(result.points.mean(axis=0), [20, 30], atol=1e-9)
    assert not _component_at(disc(SIDE, (42, 30), 7) | disc(SIDE, (8, 30), 2), drawn).any()


def test_made_noise_has_deviation_1_and_correlated_neighbours() -> None:
    noise = make_noise(np.random.default_rng(0), 300)
    assert noise.shape == (300, 300) and noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.01) and abs(noise.mean()) < 0.02
    neighbours = float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])
    assert neighbours == pytest.approx(2 * NEIGHBOUR / (1 + 2 * NEIGHBOUR**2), abs=0.02)


def test_measuring_finds_what_was_made_in_spite_of_a_slope_and_a_vessel() -> None:
    noise = 25 * make_noise(np.random.default_rng(1), 60)
    image = noise - 850 + 0.5 * np.arange(60, dtype=np.float32)
    image[:, 20:22] += 700
    assert estimate_noise(high_pass(image)) == pytest.approx(25, rel=0.15)


def test_a_flat_image_has_no_grain() -> None:
    assert estimate_noise(high_pass(np.full((9, 9), -800, np.float32))) == 0


LUNG, TISSUE, BROAD, FINE = -850, 40, 81, 8
BOXES = Path(__file__).parents[5] / "shared" / "data" / "nodule_volumes"


class Laid(NamedTuple):
    """A composite (N, N) on plain lung, the crop at its pixel size, mm beyond the mask, and the patch."""

    image: NDArray[np.float64]
    crop: NDArray[np.float32]
    beyond: NDArray[np.float64]
    patch: NodulePatch


def disc_slice(diameter_mm: float, pixel_mm: float, psf: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A disc beside the middle of a slice, blurred by ``psf`` pixels, and its mask."""
    rows, columns = np.mgrid[: BROAD * FINE, : BROAD * FINE] / FINE - 0.5 + 0.5 / FINE
    inside = np.hypot(rows - 40.3, columns - 39.8) <= diameter_mm / 2 / pixel_mm
    share = inside.reshape(BROAD, FINE, BROAD, FINE).mean((1, 3))
    hu = LUNG + (TISSUE - LUNG) * gaussian_filter(share, psf)
    return np.rint(hu).astype(np.int16), share >= 0.5


def laid(
    hu: np.ndarray, mask: np.ndarray, spacing: tuple[float, float], to_mm: float, rules: CropSettings
) -> Laid:
    """Cut out, stamped and laid on lung of the level of its own."""
    crop, alpha = crop_nodule(hu, mask, spacing, rules)
    centre, step = np.argwhere(alpha >= 128).mean(axis=0), to_mm / rules.pixel_mm
    patch = make_patch(crop, alpha, centre, rules.pixel_mm, to_mm)
    half = patch.hu.shape[0] // 2 + 8
    image = np.full((2 * half + 1,) * 2, round(patch.background), np.int16)
    blend(image, np.ones_like(image, np.uint8), patch, (half, half), np.random.default_rng(0))

    def resampled(array: np.ndarray) -> NDArray[np.float32]:
        smooth = gaussian_filter(array.astype(np.float32), 0.5 * max(step**2 - 1, 0) ** 0.5)
        start, size = centre - half * step, (2 * half + 1,) * 2
        return affine_transform(smooth, [step, step], start, size, order=1, mode="nearest")

    share = resampled(alpha >= 128)
    beyond = distance_transform_edt(share < min(0.5, share.max())) * to_mm
    return Laid(image.astype(np.float64), resampled(crop), beyond, patch)


def width_mm(image: np.ndarray, lung: float, near: np.ndarray, pixel_mm: float) -> float:
    """Of the disc with the area above half of the maximum, counted on points of a quarter of a pixel."""
    above = (zoom(image, 4, order=3, mode="nearest", grid_mode=True) >= (image[near].max() + lung) / 2) & (
        near.repeat(4, 0).repeat(4, 1)
    )
    pieces, _ = label(above)
    return 2 * float(np.sqrt(np.bincount(pieces[pieces > 0]).max() / np.pi)) * pixel_mm / 4


def kept(result: Laid, pixel_mm: float, reach_mm: float) -> tuple[float, float]:
    """Diameter and integrated contrast as shares of the crop's, up to so far from the mask."""
    lung, near = result.patch.background, result.beyond <= max(reach_mm, 1.01 * pixel_mm)
    widths = [width_mm(image, lung, near, pixel_mm) for image in (result.image, result.crop)]
    sums = [float((image - lung)[near].sum()) for image in (result.image, result.crop)]
    return widths[0] / widths[1], sums[0] / sums[1]


@pytest.mark.parametrize("diameter_mm", [4, 6, 8, 12, 20])
@pytest.mark.parametrize(
    ("pixel_mm", "to_mm", "rules"),
    [
        (0.7, 0.7, CropSettings()),
        (0.7, 0.7, CropSettings(57, 39.9)),
        (0.5, 1.0, CropSettings()),
        (0.9, 0.9, CropSettings()),
        (0.7, 2.8, CropSettings()),
    ],
)
def test_discs_keep_their_width_and_contrast_and_the_record_says_it(
    diameter_mm: float, pixel_mm: float, to_mm: float, rules: CropSettings
) -> None:
    """Blended by alpha once more, 4 mm were 0.77 as wide with 0.60 of their contrast."""
    result = laid(*disc_slice(diameter_mm, pixel_mm), (pixel_mm, pixel_mm), to_mm, rules)
    assert kept(result, to_mm, 2.0) == pytest.approx((1, 1), abs=0.01)
    near = result.beyond <= max(2.0, 1.01 * to_mm)
    width = width_mm(result.image, result.patch.background, near, to_mm)
    assert result.patch.outline.diameter_mm == pytest.approx(width, rel=0.03 if to_mm < 2 else 0.05)


@pytest.mark.parametrize("diameter_mm", [5, 12])
def test_a_drawn_alpha_is_a_label_however_soft(diameter_mm: float) -> None:
    """A generator's alpha has a wide rim and need not reach 255; the drawn HU come as they are."""
    hu, mask = disc_slice(diameter_mm, 1.25)
    crop, drawn = hu[24:57, 24:57], gaussian_filter(mask[24:57, 24:57].astype(float), 1)
    alpha = np.rint(230 * drawn / drawn.max()).astype(np.uint8)
    patch = make_patch(crop, alpha, np.array([16.0, 16.0]), 1.25, 1.25)
    image = np.full((61, 61), LUNG, np.int16)
    _, inside = blend(image, np.ones_like(image, np.uint8), patch, (30, 30), np.random.default_rng(0))
    np.testing.assert_array_equal(image[14:47, 14:47], crop)
    assert patch.outline.diameter_mm == pytest.approx(diameter_mm, rel=0.06)
    half = patch.hu.shape[0] // 2
    np.testing.assert_array_equal(
        inside[half - 9 : half + 10, half - 9 : half + 10], alpha[7:26, 7:26] >= 128
    )


@pytest.mark.parametrize("noise", [0, 25])
@pytest.mark.parametrize("over", ["lung", "itself"])
def test_a_disc_laid_back_where_it_came_from_changes_nothing_beyond_noise(noise: float, over: str) -> None:
    hu, mask = disc_slice(8, 0.7)
    rough = noise * make_noise(np.random.default_rng(0), BROAD)
    image, lung = (np.rint(values + rough).astype(np.int16) for values in (hu, np.float32(LUNG)))
    patch = make_patch(image, mask.astype(np.uint8) * 255, np.array([40.0, 40.0]), 0.7, 0.7)
    result = (image if over == "itself" else lung).copy()
    blend(result, np.ones_like(result, np.uint8), patch, (40, 40), np.random.default_rng(1))
    change = np.abs(result.astype(int) - image)
    opaque = np.zeros(image.shape, bool)
    half = patch.hu.shape[0] // 2
    opaque[40 - half : 41 + half, 40 - half : 41 + half] = patch.alpha == 1
    assert change[opaque].max() == 0 and change.max() <= 2 * noise


@pytest.mark.parametrize(("own", "wanted"), [(30, 30), (30, 12), (10, 40), (50, 30)])
def test_the_grain_is_what_is_missing_and_the_nodule_keeps_its_size(own: float, wanted: float) -> None:
    """Whatever the noise of the two scans, the composite has the slice's, at a stretch too."""
    hu, mask = disc_slice(20, 0.7)
    clean = np.where(mask, hu - 300, hu)  # ground glass: its HU follow the lung
    random = np.random.default_rng(3)
    rough = np.rint(clean + own * make_noise(random, BROAD)).astype(np.int16)
    patch = make_patch(rough, mask.astype(np.uint8) * 255, np.array([40.0, 40.0]), 0.7, 0.7)
    image = np.rint(-700 + wanted * make_noise(random, 101)).astype(np.int16)
    blend(image, np.ones_like(image, np.uint8), patch, (50, 50), random)
    inside = high_pass(image.astype(np.float32))[41:60, 41:60]
    assert estimate_noise(inside) == pytest.approx(wanted, rel=0.2)
    level = (-260 - 50) * (50 + 700) / (50 + 850) + 50
    assert image[41:60, 41:60].mean() == pytest.approx(level, abs=12)


@pytest.mark.realdata
@pytest.mark.skipif(not BOXES.is_dir(), reason=f"{BOXES}: the real nodules are not there")
def test_real_nodules_keep_their_width_and_contrast() -> None:
    """Every eighth box of LIDC-IDRI; what touches a nodule ends beside it, which is 5 % of the widths."""
    shares = []
    for path in sorted((BOXES / "images").glob("*.nii.gz"))[::8]:
        image, drawn = nib.load(path), nib.load(BOXES / "masks" / path.name)
        mask = np.asarray(drawn.dataobj) > 0
        z = int(mask.sum((0, 1)).argmax())
        rows, columns = (float(mm) for mm in image.header.get_zooms()[:2])
        if mask[..., z].sum() * rows * columns < 12 or max(np.ptp(np.argwhere(mask[..., z]), axis=0)) > 45:
            continue
        hu = np.asarray(image.dataobj)[..., z].astype(np.int16)
        shares.append(kept(laid(hu, mask[..., z], (rows, columns), 0.7, CropSettings()), 0.7, 1.3))
    widths, contrasts = np.array(shares).T
    assert len(shares) > 30
    assert (np.abs(np.percentile(widths, [10, 50, 90]) - 1) < 0.03).all()
    assert (np.abs(np.percentile(contrasts, [5, 50, 95]) - 1) < 0.03).all()
