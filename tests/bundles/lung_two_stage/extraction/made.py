"""A made set of scans that is small enough for the quick tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from common.data.phantoms.writing import save_volume

SHAPE = (8, 48, 48)
SPACING = (10.0, 7.0, 7.0)
NODULE_SLICE = 5
AFFINE = np.diag([-7.0, -7.0, 10.0, 1.0])  # (X, Y, Z) to the left, to the back and up: LPS


def chest() -> np.ndarray:
    """HU (Z, H, W): a body of 320 mm by 240 mm with two lungs in all slices but the lowest two."""
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]] * 7.0
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, ((rows - 168) / 120) ** 2 + ((columns - 168) / 160) ** 2 <= 1] = 40
    for middle in (95, 245):
        hu[2:, ((rows - 168) / 75) ** 2 + ((columns - middle) / 55) ** 2 <= 1] = -850
    return hu


def with_nodule(hu: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A nodule of 4 x 3 pixels in the right lung, of category 1 or 2, and its mask."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[NODULE_SLICE, 22 : 22 + 4, 12:15] = number % 2 + 1
    return np.where(mask > 0, 20, hu).astype(np.int16), mask


def write_scans(folder: Path, patients: Sequence[str], categories: bool = True) -> Path:
    """``images/`` and ``masks/`` of one scan for each patient, and ``categories.json``."""
    for number, patient in enumerate(patients):
        noise = np.random.default_rng(number).normal(0, 10, SHAPE)
        hu, mask = with_nodule((chest() + noise).astype(np.int16), number)
        save_volume(folder / "images" / f"{patient}.nii.gz", hu.transpose(2, 1, 0), AFFINE)
        save_volume(folder / "masks" / f"{patient}.nii.gz", mask.transpose(2, 1, 0), AFFINE)
    if categories:
        (folder / "categories.json").write_text('["solid", "spiculated"]')
    return folder


def spoil(path: Path, value: int) -> None:
    """Fills a written volume with noise around one value: a scan of something else."""
    image = nib.load(path)
    voxels = np.random.default_rng(0).normal(value, 5, image.shape).astype(np.int16)
    save_volume(path, voxels, image.affine)
