from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.image_layouts import find_images
from common.errors import UserError
from common.files import read_json
from common.inference.sampling import SampleNumbers
from common.inference.writers import SampleWriter
from common.provenance import Provenance

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
    names = [f"samples/seed5_sample{k:06d}.png" for k in (31, 32, 33)]
    assert files == ["grid.png", *names, "samples/seed5_samples000031-000033.json"]
    pixels = np.asarray(Image.open(tmp_path / "samples" / "seed5_sample000032.png"))
    assert pixels.shape == (8, 8) and pixels[0, 0] == 0 and (pixels.ravel()[1:] == 168).all()  # 0.66 of 255
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == 2 * 166 + 6


def test_samples_of_conditional_models_lie_in_their_classes_folders(tmp_path: Path) -> None:
    files = written(tmp_path, SampleNumbers(2, 0, "all", ["mild", "severe"]), grid=0)
    names = ["mild/seed5_sample000000.png", "severe/seed5_sample000001.png"]
    record = "seed5_samples000000-000001.json"
    assert files == [f"samples/{name}" for name in (names[0], record, names[1])]
    assert read_json(tmp_path / "samples" / record)["files"] == names


def test_every_sample_says_that_it_is_synthetic_and_by_which_model(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    made_by = Provenance("painter", None, tmp_path / "model.pt", 5)
    written(tmp_path / "a", SampleNumbers(2, 7, "all", ["mild", "severe"]), provenance=made_by)
    written(tmp_path / "b", SampleNumbers(2, 7, "all", ["mild", "severe"]), provenance=made_by)
    name = "samples/severe/seed5_sample000007.png"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with Image.open(tmp_path / "a" / name) as picture:
        text = dict(picture.info)
    assert text["Description"] == "synthetic, painter"
    assert json.loads(text["Comment"]) == made_by.record(sample=7, **{"class": "severe"})
    with Image.open(tmp_path / "a" / "grid.png") as grid:
        assert grid.info["Description"] == "synthetic, painter"
    whole = read_json(tmp_path / "a" / "samples" / "seed5_samples000007-000008.json")
    assert whole["model_sha256"] == hashlib.sha256(b"weights").hexdigest() and whole["seed"] == 5


@pytest.mark.parametrize("classes", [[], ["mild", "severe"]])
def test_samples_with_their_json_are_a_data_set(tmp_path: Path, classes: list[str]) -> None:
    writer = SampleWriter(SampleNumbers(4, 0, "all", classes), 5, tmp_path, INFO)
    for number in range(4):
        writer.add(number, torch.rand((1, 32, 32), generator=torch.manual_seed(number)) * 2 - 1)
    writer.report()
    found = find_images(tmp_path / "samples")
    assert len(found.samples) == 4 and found.classes == (classes or ["samples"])


def test_nifti_is_in_hu_and_lies_as_the_picture(tmp_path: Path) -> None:
    written(tmp_path, SampleNumbers(1, 50), file_type="nifti", grid=0)
    file = nib.load(tmp_path / "samples" / "seed5_sample000050.nii.gz")
    assert file.header["descrip"].item() == b"synthetic"
    voxels = np.asanyarray(file.dataobj)
    assert voxels.shape == (8, 8, 1) and voxels.dtype == np.int16
    assert nib.aff2axcodes(file.affine) == ("L", "P", "S")
    assert voxels[0, 0, 0] == -1000 and voxels[1, 0, 0] == 50  # 0.5 is three quarters of the window


def test_further_channels_have_folders_of_their_own(tmp_path: Path) -> None:
    numbers, info = SampleNumbers(1), {**INFO, "spacing_mm": 0.5}
    prediction = torch.stack([torch.zeros(4, 4), torch.ones(4, 4), -torch.ones(4, 4)])
    for file_type in ("png", "nifti"):
        writer = SampleWriter(numbers, 0, tmp_path, info, file_type, 0, channel_folders=["alpha"])
        writer.add(0, prediction)
        assert writer.written[0].parent.name == "samples"
    assert (np.asarray(Image.open(tmp_path / "alpha" / "seed0_sample000000.png")) == 255).all()
    alpha, image = (nib.load(tmp_path / n / "seed0_sample000000.nii.gz") for n in ("alpha", "samples"))
    assert (np.asanyarray(alpha.dataobj) == 255).all() and (np.asanyarray(image.dataobj) == -300).all()
    assert np.allclose(np.abs(np.diag(alpha.affine)), [0.5, 0.5, 1, 1])


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tiff' is unknown; choose png or nifti"):
        SampleWriter(SampleNumbers(1), 0, tmp_path, INFO, file_type="tiff")
