from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.intensity import Window
from common.data.store.planes import from_planes
from common.data.store.request import Geometry, Intensity, Request
from common.data.store.store import SliceStore
from common.data.store.volume import StoredVolume
from common.data.volumes import open_volume
from common.inference.assembly import assembled, condition_planes, kept, plane_of, real_planes
from tests.common.inference.hearts import AFFINES, heart, save

SCALE = Window(-200, 600)


def stored(path: Path, kind: str, geometry: Geometry) -> StoredVolume:
    request = Request(path, kind, Intensity() if kind == "image" else None)
    return SliceStore(path.parent / "store", geometry).convert([request])[0]


def test_a_prediction_is_kept_in_sixteen_bits() -> None:
    prediction = torch.tensor([[[-1.0, 0.0], [1.0, 1.5]], [[7.0, 7.0], [7.0, 7.0]]])  # 2 channels
    squares = kept(prediction)
    assert squares.dtype == np.uint16 and squares.tolist() == [[0, 32768], [65535, 65535]]


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_squares_return_to_their_planes(tmp_path: Path, axis: str) -> None:
    label = stored(save(tmp_path / "a.nii.gz", heart(9, 8, 7)), "label", Geometry(24, axis))
    squares = [np.full((24, 24), 1000 * n, np.uint16) for n in range(label.depth)]
    planes = assembled(squares, label, SCALE)
    assert planes.dtype == np.int16
    expected = np.rint(-200 + 800 * 1000 * np.arange(label.depth) / 65535)
    assert (planes == expected[:, None, None]).all()
    assert from_planes(planes, axis).shape == open_volume(tmp_path / "a.nii.gz").array.shape


def test_beyond_the_crop_is_the_lower_end(tmp_path: Path) -> None:
    label = stored(save(tmp_path / "a.nii.gz", heart(12, 12, 2)), "label", Geometry(8, spacing=1.5))
    planes = assembled([np.full((8, 8), 65535, np.uint16)] * 2, label, SCALE)
    assert planes.shape == (2, 12, 12) and (planes[:, 2:10, 2:10] == 600).all()
    assert (planes[:, :2] == -200).all() and (planes[:, :, 10:] == -200).all()


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_classes_lie_where_the_files_labels_lie(tmp_path: Path, affine: str, axis: str) -> None:
    voxels = heart(9, 8, 7)
    label = stored(save(tmp_path / "a.nii.gz", voxels, AFFINES[affine]), "label", Geometry(8, axis))
    assert label.values == (0, 1, 2, 7)
    place, classes = condition_planes(label, np.array([0, 1, 0, 3], np.uint8))
    assert classes.dtype == np.uint8 and place.array.size == 0
    expected = np.array([0, 1, 0, 0, 0, 0, 0, 3])[voxels]
    assert (place.restore(from_planes(classes, axis)) == expected).all()


def test_an_image_as_condition_is_one_class(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.arange(-50, 50, dtype=np.int16).reshape(5, 5, 4))
    _, classes = condition_planes(stored(path, "image", Geometry(5)), None)
    assert classes.shape == (4, 5, 5) and (classes == 1).all()


def test_a_real_image_takes_the_way_of_a_generated_one(tmp_path: Path) -> None:
    image = np.linspace(-1000, 1000, 100).astype(np.int16).reshape(5, 5, 4)
    path = save(tmp_path / "a.nii.gz", image)
    planes = real_planes(stored(path, "image", Geometry(5)), SCALE)
    back = open_volume(path).restore(from_planes(planes, "axial"))
    assert (back == np.clip(image, -200, 600)).all()  # equal sizes: nothing is resampled


def test_a_picture_is_one_plane(tmp_path: Path) -> None:
    label = stored(save(tmp_path / "a.nii.gz", heart(9, 8, 1)), "label", Geometry(8))
    plane = plane_of(np.full((8, 8), 32768, np.uint16), label)
    assert plane.dtype == np.float32 and plane.shape == (8, 9)  # LPS: the file's first axis is the columns
    assert np.allclose(plane, 0.5, atol=1e-4)
