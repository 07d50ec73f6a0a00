"""Bytes of images: plain files that other programs read."""

from __future__ import annotations

import gzip
import io

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bundles.lung_two_stage.composition.formats import Format
from common.errors import UserError

HU = np.array([[-1000, -650], [-300, 400], [3000, -2000]], np.int16)


def test_npy_is_what_numpy_writes() -> None:
    file = io.BytesIO()
    np.save(file, HU)
    assert Format().image(HU, 1.0) == file.getvalue()


def test_png_greys_are_the_windows() -> None:
    grey = np.asarray(Image.open(io.BytesIO(Format("png").image(HU, 1.0))))
    np.testing.assert_array_equal(grey, [[0, 64], [128, 255], [255, 0]])  # -650 is a quarter of -1000..400
    wide = Format("png16")
    assert np.asarray(Image.open(io.BytesIO(wide.image(HU, 1.0)))).dtype == np.uint16
    everything = np.arange(-1024, 3072, dtype=np.int16)[None]
    np.testing.assert_array_equal(wide.read_image(wide.image(everything, 1.0)), everything)


def test_nifti_has_the_spacing_and_the_patients_axes() -> None:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(Format("nifti").image(HU, 0.7)))
    assert image.shape == (2, 3, 1) and image.get_data_dtype() == np.int16
    assert image.header.get_zooms()[:2] == pytest.approx((0.7, 0.7))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert np.asarray(image.dataobj)[1, 0, 0] == -650


def test_files_say_that_they_are_synthetic() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    png, wide = Format("png"), Format("png16")
    for content in (png.image(HU, 1.0), wide.image(HU, 1.0), png.mask(labels, 1.0)):
        text = Image.open(io.BytesIO(content)).info
        assert text == {"Description": "synthetic, lung_two_stage 0.1.0", "Software": "lung_two_stage 0.1.0"}
    for content in (Format("nifti").image(HU, 0.7), Format("nifti").mask(labels, 0.7)):
        header = nib.Nifti1Image.from_bytes(gzip.decompress(content)).header
        assert header["descrip"].item() == b"synthetic, lung_two_stage 0.1.0"


def test_masks_keep_their_values() -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    for name in ("npy", "png", "png16", "nifti"):
        kind = Format(name)
        np.testing.assert_array_equal(kind.read_mask(kind.mask(labels, 1.0)), labels)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="format 'jpg' is unknown; choose npy"):
        Format("jpg")
    with pytest.raises(UserError, match="leave the window out"):
        Format("npy", "lung")
    with pytest.raises(UserError, match="window 'lnug' is unknown"):
        Format("png", "lnug").image(HU, 1.0)
