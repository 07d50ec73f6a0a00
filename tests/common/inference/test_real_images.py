from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.image_data import ImageData
from common.errors import UserError
from common.inference.real_images import image_as_in_training

AXES = np.diag([-1.0, -1.0, 1.0, 1.0])


def picture(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_it_is_what_training_saw(tmp_path: Path, fit: str) -> None:
    for number in range(9):
        picture(tmp_path / "set" / f"p{number}.png", 20 + number, 30, number)
    data = ImageData(tmp_path / "set", 16, fit=fit, flips=False, standardise="histogram")
    sample, image = data.test.samples[0], data.test.images[:1]
    found = image_as_in_training(sample.image, data.metadata(), 16)
    assert torch.equal(found, torch.from_numpy(image))


def test_a_slice_of_a_volume_by_number_or_the_middle_one(tmp_path: Path) -> None:
    levels = np.linspace(-1000, 400, 5)  # of 5 slices
    noise = np.random.default_rng(0).integers(0, 2, (8, 8, 1))
    nib.save(nib.Nifti1Image((levels + noise).astype(np.int16), AXES), tmp_path / "v.nii.gz")
    middle, last = (
        image_as_in_training(tmp_path / "v.nii.gz", {"window_hu": [-1000, 401]}, 8, index)
        for index in (None, 4)
    )
    assert middle.shape == (1, 1, 8, 8) and abs(float(middle.mean())) < 0.01
    assert float(last.min()) > 0.99
    with pytest.raises(UserError, match="has no slice 5; its 5 slices are numbered from 0"):
        image_as_in_training(tmp_path / "v.nii.gz", {}, 8, 5)


@pytest.mark.parametrize(
    ("name", "said"),
    [("none.png", "no such file"), ("text.png", "cannot be read"), ("text.txt", "unknown file type")],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.txt").write_text("no image")
    with pytest.raises(UserError, match=f"{name}: {said}"):
        image_as_in_training(tmp_path / name, {}, 16)


def test_a_picture_has_no_slices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a picture has no slices"):
        image_as_in_training(picture(tmp_path / "a.png"), {}, 16, 2)
