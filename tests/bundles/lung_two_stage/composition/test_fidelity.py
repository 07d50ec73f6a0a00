"""Nodules cut out and laid on a lung keep their width and their contrast: of discs, and of LIDC-IDRI."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, label, zoom

from bundles.lung_two_stage.composition.patches import (
    NodulePatch,
    estimate_noise,
    high_pass,
    make_noise,
    make_patch,
)
from bundles.lung_two_stage.composition.render import blend
from bundles.lung_two_stage.extraction.crops import CropSettings, crop_nodule

LUNG, TISSUE, SIDE, FINE = -850, 40, 81, 8
BOXES = Path(__file__).parents[5] / "shared" / "data" / "nodule_volumes"


class Laid(NamedTuple):
    """A composite (N, N) on plain lung, the crop at its pixel size, mm beyond the mask, and the patch."""

    image: NDArray[np.float64]
    crop: NDArray[np.float32]
    beyond: NDArray[np.float64]
    patch: NodulePatch


def disc_slice(diameter_mm: float, pixel_mm: float, psf: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A disc beside the middle of a slice, blurred by ``psf`` pixels, and its mask."""
    rows, columns = np.mgrid[: SIDE * FINE, : SIDE * FINE] / FINE - 0.5 + 0.5 / FINE
    inside = np.hypot(rows - 40.3, columns - 39.8) <= diameter_mm / 2 / pixel_mm
    share = inside.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))
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


def kept(found: Laid, pixel_mm: float, reach_mm: float) -> tuple[float, float]:
    """Diameter and integrated contrast as shares of the crop's, up to so far from the mask."""
    lung, near = found.patch.background, found.beyond <= max(reach_mm, 1.01 * pixel_mm)
    widths = [width_mm(image, lung, near, pixel_mm) for image in (found.image, found.crop)]
    sums = [float((image - lung)[near].sum()) for image in (found.image, found.crop)]
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
    found = laid(*disc_slice(diameter_mm, pixel_mm), (pixel_mm, pixel_mm), to_mm, rules)
    assert kept(found, to_mm, 2.0) == pytest.approx((1, 1), abs=0.01)
    near = found.beyond <= max(2.0, 1.01 * to_mm)
    width = width_mm(found.image, found.patch.background, near, to_mm)
    assert found.patch.outline.diameter_mm == pytest.approx(width, rel=0.03 if to_mm < 2 else 0.05)


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
    rough = noise * make_noise(np.random.default_rng(0), SIDE)
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
    rough = np.rint(clean + own * make_noise(random, SIDE)).astype(np.int16)
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
