from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.store.conversion import image_slices, label_slices, read_source
from common.data.store.request import Geometry, Intensity, Request
from common.errors import UserError
from tests.common.data.store.made import hounsfield, image, label, labels, save
from tests.common.data.test_bad_input import write_dicom, write_mhd


def image_of(path: Path, geometry: Geometry, intensity: Intensity | None = None):  # type: ignore[no-untyped-def]
    request = image(path) if intensity is None else image(path, intensity)
    assert request.intensity is not None
    return image_slices(read_source(request, geometry), geometry, request.intensity, path)


def label_of(path: Path, geometry: Geometry):  # type: ignore[no-untyped-def]
    return label_slices(read_source(label(path), geometry), geometry, path)


def test_a_window_becomes_the_sixteen_bits(tmp_path: Path) -> None:
    array = np.array([-2000, -200, 200, 600, 3000, -199], np.int16).reshape(6, 1, 1)
    slices = image_of(save(tmp_path / "a.nii", array), Geometry(6), Intensity())
    assert slices.array.shape == (1, 6, 6) and slices.array.dtype == np.uint16
    assert slices.array[0, 0].tolist() == [0, 0, 32768, 65535, 65535, 82]  # 1 / 800 * 65535 = 81.9
    assert (slices.lower, slices.upper, slices.is_hu) == (-200, 600, True)


def test_shrinking_averages_after_windowing(tmp_path: Path) -> None:
    array = np.array([[-1020, 1000], [0, 1000]], np.int16).reshape(2, 2, 1)
    slices = image_of(save(tmp_path / "a.nii", array), Geometry(1), Intensity("window", -1000, 1000))
    assert slices.array[0, 0, 0] == round(65535 * (0 + 1 + 0.5 + 1) / 4)


def test_percentiles_are_of_the_own_voxels(tmp_path: Path) -> None:
    array = np.arange(101, dtype=np.int16).reshape(101, 1, 1) * 10
    slices = image_of(save(tmp_path / "a.nii", array), Geometry(1), Intensity("percentile", 5, 90))
    assert (slices.lower, slices.upper, slices.is_hu) == (50, 900, False)


def test_eight_bits_keep_their_own_range_under_a_window(tmp_path: Path) -> None:
    slices = image_of(save(tmp_path / "a.nii", np.array([[[0]], [[51]]], np.uint8)), Geometry(2))
    assert (slices.lower, slices.upper, slices.is_hu) == (0, 255, False)
    assert slices.array[0, 0].tolist() == [0, 13107]


@pytest.mark.parametrize("kind", ["nii.gz", "mhd", "mha", "zmhd", "dicom"])
def test_every_kind_of_volume_is_read(tmp_path: Path, kind: str) -> None:
    array = hounsfield()
    path = tmp_path / ("series" if kind == "dicom" else f"a.{kind.removeprefix('z')}")
    if kind == "dicom":
        write_dicom(path, array)
    elif kind == "nii.gz":
        save(path, array)
    else:
        write_mhd(path, array, compression=kind == "zmhd")
    slices = image_of(path, Geometry(5, "sagittal"))
    expected = image_of(save(tmp_path / "expected.nii", array), Geometry(5, "sagittal"))
    assert np.array_equal(slices.array, expected.array)


def test_oblique_volumes_take_the_nearest_axes(tmp_path: Path) -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    array = hounsfield()
    nib.save(nib.Nifti1Image(array, turn @ np.diag([-0.5, -0.75, 2, 1])), tmp_path / "oblique.nii")
    source = read_source(image(tmp_path / "oblique.nii"), Geometry(8))
    assert np.array_equal(source.array, array.transpose(1, 0, 2))
    assert source.spacing == pytest.approx((0.75, 0.5, 2.0))


def test_pictures_are_single_slices_brought_upright(tmp_path: Path) -> None:
    gray = np.array([[0, 51], [102, 255]], np.uint8)
    Image.fromarray(gray).save(tmp_path / "a.png")
    request = Request(tmp_path / "a.png", "image", Intensity(), "rot90")
    source = read_source(request, Geometry(2))
    slices = image_slices(source, Geometry(2), Intensity(), request.path)
    assert source.shape == (2, 2, 1)
    assert slices.array[0].tolist() == [[51 * 257, 255 * 257], [0, 102 * 257]]
    assert (slices.lower, slices.upper, slices.is_hu) == (0, 255, False)


def test_labels_of_palette_pictures_are_their_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 2], [1, 2]], np.uint8))
    picture.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30] + [0] * 759)
    picture.save(tmp_path / "a.png")
    slices = label_of(tmp_path / "a.png", Geometry(2))
    assert slices.array[0].tolist() == [[0, 2], [1, 2]] and slices.values == (0, 1, 2)


def test_labels_become_codes_with_counts(tmp_path: Path) -> None:
    path = save(tmp_path / "heart.nii.gz", labels())
    slices = label_of(path, Geometry(5))
    assert slices.values == (0, 420, 600) and slices.array.dtype == np.uint8
    # Columns from 12: centres 1.2, 3.6, 6, 8.4, 10.8; rows from 10: 1, 3, 5, 7, 9.
    true = labels().transpose(1, 0, 2)[[1, 3, 5, 7, 9]][:, [1, 3, 6, 8, 10]]
    assert np.array_equal(np.take(slices.values, slices.array), true.transpose(2, 0, 1))
    assert slices.counts.shape == (8, 3)
    assert np.array_equal(slices.counts[:, 2], (true == 600).sum((0, 1)))


def test_the_background_has_a_code_where_the_file_has_none(tmp_path: Path) -> None:
    slices = label_of(save(tmp_path / "full.nii", np.full((4, 4, 1), 7, np.int16)), Geometry(2, spacing=4.0))
    assert slices.values == (0, 7) and slices.array[0].max() == 1
    assert slices.counts.sum() == 4


def test_whole_numbers_in_floats_are_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", labels().astype(np.float32))
    assert label_of(path, Geometry(5)).values == (0, 420, 600)


def test_255_structures_fit_and_more_do_not(tmp_path: Path) -> None:
    array = np.arange(256, dtype=np.int32).reshape(16, 16, 1) * 3
    slices = label_of(save(tmp_path / "a.nii", array), Geometry(16))
    assert slices.values == tuple(range(0, 768, 3)) and slices.array.max() == 255
    array[0, 0] = 1
    array[5, 5] = 2
    with pytest.raises(UserError, match=r"b\.nii: holds more than 255"):
        label_of(save(tmp_path / "b.nii", array), Geometry(16))


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_what_is_no_label_is_refused(tmp_path: Path, value: float) -> None:
    array = labels().astype(np.float32)
    array[1, 2, 3] = value
    with pytest.raises(UserError, match=rf"bad\.nii: value {value:g} is no label"):
        label_of(save(tmp_path / "bad.nii", array), Geometry(5))


@pytest.mark.parametrize(
    ("array", "geometry", "intensity", "says"),
    [
        (np.full((4, 4, 2), 7), Geometry(2), Intensity(), "same value"),
        (np.arange(16).reshape(4, 4, 1), Geometry(2, "coronal"), Intensity(), "one slice.*axis axial"),
        ((np.arange(32) > 30).reshape(4, 4, 2), Geometry(2), Intensity("percentile", 1, 90), "both 0"),
    ],
)
def test_unfit_images_are_named(
    tmp_path: Path, array: np.ndarray, geometry: Geometry, intensity: Intensity, says: str
) -> None:
    path = save(tmp_path / "bad.nii.gz", array.astype(np.int16))
    with pytest.raises(UserError, match=rf"bad\.nii\.gz: .*{says}"):
        image_of(path, geometry, intensity)


def test_one_slice_is_served_axially(tmp_path: Path) -> None:
    assert image_of(save(tmp_path / "a.nii", hounsfield()[:, :, :1]), Geometry(4)).array.shape == (1, 4, 4)


def without_voxel_size(path: Path) -> Path:
    """A NIfTI whose header has neither transform nor voxel size."""
    save(path, hounsfield())
    content = bytearray(path.read_bytes())
    content[80:92] = bytes(12)  # pixdim[1..3]
    content[252:256] = bytes(4)  # qform_code, sform_code
    path.write_bytes(bytes(content))
    return path


def test_missing_spacing_matters_only_where_mm_are_asked_for(tmp_path: Path) -> None:
    path = without_voxel_size(tmp_path / "a.nii")
    assert read_source(image(path), Geometry(4)).spacing == (1, 1, 1)
    with pytest.raises(UserError, match=r"a\.nii: has no voxel size.*leave spacing out"):
        read_source(image(path), Geometry(4, spacing=1.0))
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: has no voxel size"):
        read_source(image(tmp_path / "a.png"), Geometry(4, spacing=1.0))


def test_other_files_and_turned_volumes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(UserError, match=r"a\.txt: unknown file type"):
        read_source(label(tmp_path / "a.txt"), Geometry(4))
    path = save(tmp_path / "a.nii", labels())
    with pytest.raises(UserError, match=r"a\.nii: orientation rot90 is for pictures"):
        read_source(Request(path, "label", orientation="rot90"), Geometry(4))
