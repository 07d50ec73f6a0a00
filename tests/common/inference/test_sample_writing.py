from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.inference.numbering import SampleNumbers
from common.inference.sample_writing import SampleWriter

INFO = {"window_hu": [-1000.0, 400.0]}


def written(folder: Path, numbers: SampleNumbers, **settings: object) -> list[str]:
    """Gives the writer sample k as an image whose first pixel is -1, the rest k / 100."""
    writer = SampleWriter(numbers, 5, folder, INFO, **settings)  # type: ignore[arg-type]
    for place in range(len(numbers)):
        number = numbers[place]["sample"]
        image = torch.full((1, 8, 8), number / 100)
        image[0, 0, 0] = -1
        writer.add(number, image)
    writer.report()
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_the_wanted_become_files_and_the_grid_shows_the_first(tmp_path: Path) -> None:
    files = written(tmp_path, SampleNumbers(3, 31), grid=2)
    assert files == ["grid.png", *(f"samples/seed5_sample{k:06d}.png" for k in (31, 32, 33))]
    pixels = np.asarray(Image.open(tmp_path / "samples" / "seed5_sample000032.png"))
    assert pixels.shape == (8, 8) and pixels[0, 0] == 0 and (pixels.ravel()[1:] == 168).all()  # 0.66 of 255
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == 2 * 166 + 6


def test_samples_of_conditional_models_lie_in_their_classes_folders(tmp_path: Path) -> None:
    files = written(tmp_path, SampleNumbers(2, 0, "all", ["mild", "severe"]), grid=0)
    assert files == ["samples/mild/seed5_sample000000.png", "samples/severe/seed5_sample000001.png"]


def test_nifti_is_in_hu_and_lies_as_the_picture(tmp_path: Path) -> None:
    written(tmp_path, SampleNumbers(1, 50), file_type="nifti", grid=0)
    file = nib.load(tmp_path / "samples" / "seed5_sample000050.nii.gz")
    voxels = np.asanyarray(file.dataobj)
    assert voxels.shape == (8, 8, 1) and voxels.dtype == np.int16
    assert nib.aff2axcodes(file.affine) == ("L", "P", "S")
    assert voxels[0, 0, 0] == -1000 and voxels[1, 0, 0] == 50  # 0.5 is three quarters of the window


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tiff' is unknown; choose png or nifti"):
        SampleWriter(SampleNumbers(1), 0, tmp_path, INFO, file_type="tiff")
