from __future__ import annotations

import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.volumes import Volume, open_volume, volume_depth, volume_shape, write_nifti

# World mm (RAS) of the one marked voxel, and the extents along x, y, z.
EXTENT, SPACING, MARK = (4, 5, 3), (0.5, 0.75, 2.0), (1, 3, 2)


def save(path: Path, axes: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """A volume whose file axis k runs along world axis ``axes[k]`` with direction ``signs[k]``."""
    array = np.zeros(EXTENT, np.int16)
    array[MARK] = 500
    array[0, 0, 0] = -900
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[axis, column] = sign * SPACING[axis]
        affine[axis, 3] = 0 if sign > 0 else (EXTENT[axis] - 1) * SPACING[axis]
    stored = array.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    nib.save(nib.Nifti1Image(stored, affine), path)
    return stored


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
@pytest.mark.parametrize("signs", itertools.product((1, -1), repeat=3))
def test_any_axis_order_reaches_display_order_and_comes_back(
    tmp_path: Path, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    stored = save(tmp_path / "a.nii", axes, signs)
    volume = Volume.from_file(tmp_path / "a.nii")
    # Right-handed world: x to the left of the picture's right side; rows run against y; slices along z.
    assert volume.array.shape == (5, 4, 3) and volume.spacing == (0.75, 0.5, 2.0)
    x, y, z = MARK
    assert volume.array[EXTENT[1] - 1 - y, EXTENT[0] - 1 - x, z] == 500
    assert volume_depth(tmp_path / "a.nii") == 3 and volume_shape(tmp_path / "a.nii") == (5, 4, 3)
    assert np.array_equal(volume.restore(volume.array), stored)


def test_results_get_shape_and_affine_of_their_source(tmp_path: Path) -> None:
    stored = save(tmp_path / "a.nii.gz", (2, 0, 1), (-1, 1, -1))
    volume = Volume.from_file(tmp_path / "a.nii.gz")
    write_nifti(tmp_path / "b.nii.gz", volume, volume.array + 0.4)
    result, source = nib.load(tmp_path / "b.nii.gz"), nib.load(tmp_path / "a.nii.gz")
    assert np.array_equal(result.affine, source.affine) and result.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(result.dataobj), stored)


def test_results_are_clipped_to_their_type(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", (0, 1, 2), (1, 1, 1))
    volume = Volume.from_file(tmp_path / "a.nii")
    write_nifti(tmp_path / "b.nii", volume, volume.array.astype(np.float64) * 1000)
    assert np.asarray(nib.load(tmp_path / "b.nii").dataobj).min() == -32768


def test_single_slices_keep_their_number_of_axes(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.arange(20, dtype=np.int16).reshape(4, 5) - 30, np.eye(4)), tmp_path / "a.nii")
    volume = Volume.from_file(tmp_path / "a.nii")
    assert volume.array.shape == (5, 4, 1) and volume.restore(volume.array).shape == (4, 5)


@pytest.mark.parametrize(
    ("array", "is_hu", "white"),
    [
        (np.array([-5, 100], np.int16), True, 255),
        (np.array([0, 200], np.uint8), False, 255),
        (np.array([0, 200], np.int16), False, 255),
        (np.array([0, 1900], np.int16), True, 255),
        (np.array([0, 0.7], np.float32), False, 1),
    ],
)
def test_what_values_mean(tmp_path: Path, array: np.ndarray, is_hu: bool, white: float) -> None:
    nib.save(nib.Nifti1Image(array.reshape(2, 1, 1), np.eye(4)), tmp_path / "a.nii")
    volume = Volume.from_file(tmp_path / "a.nii")
    assert volume.is_hu == is_hu and volume.source_range == (0, white)


def test_the_cache_notices_a_changed_file(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", (0, 1, 2), (1, 1, 1))
    first = open_volume(tmp_path / "a.nii")
    assert open_volume(tmp_path / "a.nii") is first
    os.utime(tmp_path / "a.nii", ns=(1, 1))
    assert open_volume(tmp_path / "a.nii") is not first
