"""Source files for the tests of the slice cache: asymmetric, so that flips and transposes are noticed."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from common.data.slice_geometry import Intensity, Request

# mm along x (the columns), y (the rows) and z (the slices), and voxels along them: all different.
SPACING, EXTENT = (0.5, 0.75, 2.0), (12, 10, 8)
WINDOW = Intensity("window", -1000, 1000)


def hounsfield(seed: int = 0, extent: tuple[int, int, int] = EXTENT) -> np.ndarray:
    """int16 (X, Y, Z) within -1000..1000: a ramp along each axis with its own slope, and noise."""
    x, y, z = np.indices(extent)
    noise = np.random.default_rng(seed).integers(-20, 20, extent)
    return (40 * x - 15 * y + 70 * z + noise - 300).astype(np.int16)


def labels(extent: tuple[int, int, int] = EXTENT) -> np.ndarray:
    """uint16 (X, Y, Z): 420 in a box off the centre, 600 in a smaller one beside it."""
    array = np.zeros(extent, np.uint16)
    array[2:9, 1:6, 1:5] = 420
    array[3:5, 6:9, 2:7] = 600
    return array


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    """NIfTI whose axes run to the patient's left, back and head: display order is its (Y, X, Z)."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def image(path: Path, intensity: Intensity = WINDOW) -> Request:
    """The request of an image."""
    return Request(path, "image", intensity)


def label(path: Path) -> Request:
    """The request of a label file."""
    return Request(path, "label")
