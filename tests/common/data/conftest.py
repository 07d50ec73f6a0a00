"""A small set of hearts whose gray values tell the label: what is served can be checked against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SIDE, DEPTH = 16, 5
# Axes L, P, S with anisotropic voxels: the array is (W, H, D) in display order, nothing flipped.
AFFINE = np.diag([-1.5, -1.5, 4.0, 1.0])


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Writes a NIfTI volume; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def heart(patient: int) -> np.ndarray:
    """uint8 (W, H, D): seven blocks, asymmetric; the last slice is empty and the first has two structures."""
    label = np.zeros((SIDE, SIDE, DEPTH), np.uint8)
    for value in range(1, 8):
        first = 1 if value > 2 else 0
        label[2 * value : 2 * value + 2, value : value + 3 + patient, first : DEPTH - 1] = value
    return label


def gray(label: np.ndarray) -> np.ndarray:
    """HU that tell the label 0..7: air outside, then from 0 HU in steps of 80."""
    return np.where(label > 0, 80 * (label.astype(np.int16) - 1), -1000).astype(np.int16)


@pytest.fixture
def hearts(tmp_path: Path) -> Path:
    """``images/`` and ``labels/``: five patients p0..p4 of five slices."""
    folder = tmp_path / "hearts"
    for patient in range(5):
        label = heart(patient)
        save(folder / "labels" / f"p{patient}.nii.gz", label)
        save(folder / "images" / f"p{patient}.nii.gz", gray(label))
    return folder


@pytest.fixture
def save_volume() -> Callable[..., Path]:
    """`save`."""
    return save


@pytest.fixture
def heart_label() -> Callable[[int], np.ndarray]:
    """`heart`."""
    return heart


@pytest.fixture
def heart_image() -> Callable[[np.ndarray], np.ndarray]:
    """`gray`."""
    return gray
