"""ComposeSettings as they come from configs and command lines."""

from __future__ import annotations

import gzip
import io
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundles.lung_two_stage.composition.settings import ComposeSettings, FileFormat
from common.errors import UserError


def settings(**more: Any) -> ComposeSettings:
    return ComposeSettings("nodules", "healthy_slices", "out", **more)


def test_digits_are_numbers_and_a_list_is_a_window() -> None:
    asked = settings(count="12", groups="7", file_format="png", window=[-1000, 200])
    assert (asked.count, asked.groups) == (12, 7) and asked.window == (-1000, 200)
    assert asked == settings(count=12, groups=7, file_format="png", window=(-1000, 200)) and hash(asked)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"count": 0}, "count 0: give a whole number of at least 1"),
        ({"per_shard": "many"}, "per_shard many: give a whole number"),
        ({"nodules_per_group": 99}, "nodules_per_group 99: give at most 16"),
        ({"file_format": "jpg"}, "format 'jpg' is unknown"),
        ({"file_format": "png", "window": "lnug"}, "window 'lnug' is unknown"),
        ({"window": "lung"}, "leave the window out"),
    ],
)
def test_wrong_ones_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings(**more)


HU = np.array([[-1000, -650], [-300, 400], [3000, -2000]], np.int16)


def test_npy_is_what_numpy_writes() -> None:
    file = io.BytesIO()
    np.save(file, HU)
    assert FileFormat().encode_image(HU, 1.0) == file.getvalue()


def test_png_greys_are_the_windows() -> None:
    grey = np.asarray(Image.open(io.BytesIO(FileFormat("png").encode_image(HU, 1.0))))
    np.testing.assert_array_equal(grey, [[0, 64], [128, 255], [255, 0]])  # -650 is a quarter of -1000..400
    wide = FileFormat("png16")
    assert np.asarray(Image.open(io.BytesIO(wide.encode_image(HU, 1.0)))).dtype == np.uint16
    everything = np.arange(-1024, 3072, dtype=np.int16)[None]
    np.testing.assert_array_equal(wide.decode_image(wide.encode_image(everything, 1.0)), everything)


def test_nifti_has_the_spacing_and_the_patients_axes() -> None:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(FileFormat("nifti").encode_image(HU, 0.7)))
    assert image.shape == (2, 3, 1) and image.get_data_dtype() == np.int16
    assert image.header.get_zooms()[:2] == pytest.approx((0.7, 0.7))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.asarray(image.dataobj)[1, 0, 0] == -650


def test_files_say_that_they_are_synthetic() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    png, wide = FileFormat("png"), FileFormat("png16")
    for content in (png.encode_image(HU, 1.0), wide.encode_image(HU, 1.0), png.encode_mask(labels, 1.0)):
        text = Image.open(io.BytesIO(content)).info
        assert text == {"Description": "synthetic, lung_two_stage 0.1.0", "Software": "lung_two_stage 0.1.0"}
    for content in (FileFormat("nifti").encode_image(HU, 0.7), FileFormat("nifti").encode_mask(labels, 0.7)):
        header = nib.Nifti1Image.from_bytes(gzip.decompress(content)).header
        assert header["descrip"].item() == b"synthetic, lung_two_stage 0.1.0"


def test_masks_keep_their_values() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    for name in ("npy", "png", "png16", "nifti"):
        kind = FileFormat(name)
        np.testing.assert_array_equal(kind.decode_mask(kind.encode_mask(labels, 1.0)), labels)
