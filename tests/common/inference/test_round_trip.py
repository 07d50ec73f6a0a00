"""Masks in, CT out: a generator that gives back its mask shows whether each pixel returns to its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.data.intensity import Window
from common.data.slice_geometry import fit_mask
from common.data.transforms import preprocessing_of_model
from common.errors import UserError
from common.files import read_json
from common.inference.datasets import MaskSlices, files_of
from common.inference.prepare_batch import mask_to_image
from common.inference.writers import SliceWriter
from common.provenance import Provenance
from tests.common.data.made_sets import square

WINDOW = Window(-1000, 400)
# Voxel axes to the patient's: already in RAS, flipped and permuted, and with slices first.
AFFINES = {
    "ras": np.diag([0.7, 0.7, 5.0, 1.0]),
    "permuted": np.array([[0, -0.7, 0, 3], [0.9, 0, 0, -4], [0, 0, -5.0, 7], [0, 0, 0, 1.0]]),
    "slices_first": np.array([[0, 0.7, 0, 0], [0, 0, 0.7, 0], [2.0, 0, 0, 0], [0, 0, 0, 1.0]]),
}


class Echo(nn.Module):
    """The mask itself in [-1, 1]."""

    def forward(self, label: Tensor) -> Tensor:
        return label * 2 - 1


def pattern(*shape: int) -> np.ndarray:
    """No flip or rotation leaves it as it is."""
    mask = np.zeros(shape, np.uint8)
    mask[1:3, 2:7] = 1
    mask[4:9, 1] = 1
    return mask


def generated(dataset: MaskSlices, output: Path, **options: Any) -> SliceWriter:
    writer = SliceWriter(dataset, output, WINDOW, **options)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=3),
        network=Echo(),
        prepare_batch=mask_to_image,
        val_handlers=[writer],
    ).run()
    return writer


def save_png(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask * np.uint8(255)).save(path)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("orientation", ["auto", "rot90", "anti_transpose"])
def test_pictures_return_with_their_name_size_and_orientation(tmp_path: Path, orientation: str) -> None:
    for name in ("a", "b.c"):
        save_png(tmp_path / "masks" / f"{name}.png", pattern(10, 8))
    dataset = MaskSlices(tmp_path / "masks", square(40), orientation)
    writer = generated(dataset, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.json",
        "a.png",
        "b.c.json",
        "b.c.png",
    ]
    assert len(writer.written) == 2
    made = pixels(tmp_path / "out" / "b.c.png")
    assert made.dtype == np.uint8 and made.shape == (10, 8)
    assert ((made > 127) == pattern(10, 8)).all()


def test_every_file_says_that_it_is_synthetic_and_by_what(tmp_path: Path) -> None:
    save_png(tmp_path / "masks" / "a.png", pattern(10, 8))
    volume = nib.Nifti1Image(np.stack([pattern(10, 8)] * 2, axis=-1), np.eye(4))
    volume.header["descrip"] = b"Doe^Jane 1970"
    nib.save(volume, tmp_path / "masks" / "b.nii.gz")
    (tmp_path / "model.pt").write_bytes(b"weights")
    made_by = Provenance("painter", None, tmp_path / "model.pt", 3)
    for folder in ("one", "two"):
        generated(MaskSlices(tmp_path / "masks", square(16)), tmp_path / folder, provenance=made_by)
    with Image.open(tmp_path / "one" / "a.png") as picture:
        assert picture.info["Description"] == "synthetic, painter"
        assert json.loads(picture.info["Comment"]) == made_by.record("a.png")
    header = nib.load(tmp_path / "one" / "b.nii.gz").header
    assert header["descrip"].item() == b"synthetic, painter"
    assert header["aux_file"].item() == f"sha256:{made_by.model_sha256[:16]}".encode()
    assert read_json(tmp_path / "one" / "b.json") == made_by.record("b.nii.gz")
    for name in ("a.png", "a.json", "b.nii.gz", "b.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("folder", ["doctor", "pseudo"])
def test_covid_lesion_masks_are_turned_upright_and_back(tmp_path: Path, folder: str) -> None:
    for kind in ("images", "masks"):
        save_png(tmp_path / folder / kind / "Data-1_coronacases_org_001_1.png", pattern(8, 8))
    dataset = MaskSlices(tmp_path / folder / "masks", square(8))
    assert not (dataset.labels[0, 0].numpy() == pattern(8, 8)).all()
    generated(dataset, tmp_path / "out")
    made = pixels(tmp_path / "out" / "Data-1_coronacases_org_001_1.png")
    assert (made == 255 * pattern(8, 8)).all()


@pytest.mark.parametrize("orientation", ["auto", "rot90"])
@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_return_in_hu_with_shape_affine_and_name(
    tmp_path: Path, affine: str, orientation: str, suffix: str
) -> None:
    mask = pattern(9, 8, 7)
    mask[5, 5, 2:6] = 1
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(mask, AFFINES[affine]), tmp_path / "masks" / f"case{suffix}")
    generated(MaskSlices(tmp_path / "masks", square(72), orientation), tmp_path / "out")
    made = nib.load(tmp_path / "out" / f"case{suffix}")
    assert made.get_data_dtype() == np.int16 and made.shape == mask.shape
    np.testing.assert_allclose(made.affine, AFFINES[affine], atol=1e-6)
    hu = np.asanyarray(made.dataobj)
    assert hu.min() == -1000 and 200 < hu.max() <= 400  # thin lesions blur a little
    assert ((hu > -300) == mask).all()


def test_items_and_files(tmp_path: Path) -> None:
    save_png(tmp_path / "z.png", pattern(10, 8))
    nib.save(nib.Nifti1Image(pattern(10, 8, 3), np.eye(4)), tmp_path / "volume.nii.gz")
    dataset = MaskSlices(tmp_path, square(16))
    assert len(dataset) == 4 and [sample.index for sample in dataset.samples] == [0, 1, 2, None]
    item = dataset[3]
    assert item["sample"] == 3 and item["label"].shape == (1, 16, 16) and item["label"].dtype == torch.float32
    assert set(item["label"].unique().tolist()) == {0.0, 1.0}
    assert dataset.shapes[3] == (10, 8)
    assert list(files_of(dataset.samples).values()) == [[0, 1, 2], [3]]


def test_a_threshold_reads_soft_masks(tmp_path: Path) -> None:
    Image.fromarray(np.arange(0, 64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: holds 64 different values"):
        MaskSlices(tmp_path, square(8))
    assert MaskSlices(tmp_path, square(8), mask_threshold=40)[0]["label"].sum() == 24


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--input_dir"):
        MaskSlices(None, square(8))
    with pytest.raises(UserError, match="no such folder"):
        MaskSlices(tmp_path / "nowhere", square(8))
    with pytest.raises(UserError, match="holds no masks"):
        MaskSlices(tmp_path, square(8))
    save_png(tmp_path / "a.png", pattern(10, 8))
    with pytest.raises(UserError, match="'sideways' is unknown"):
        MaskSlices(tmp_path, square(8), "sideways")
    with pytest.raises(UserError, match="choose another --output_dir"):
        SliceWriter(MaskSlices(tmp_path, square(8)), tmp_path / "x" / "..", WINDOW)
    save_png(tmp_path / "a.bmp", pattern(10, 8))
    with pytest.raises(UserError, match="same name"):
        MaskSlices(tmp_path, square(8))


def test_a_volume_is_written_when_its_last_slice_is_there(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    nib.save(nib.Nifti1Image(pattern(9, 8, 2), np.eye(4)), tmp_path / "masks" / "v.nii.gz")
    dataset = MaskSlices(tmp_path / "masks", square(8))
    writer = SliceWriter(dataset, tmp_path / "out", WINDOW)
    writer.add(1, torch.ones(1, 8, 8))
    assert not (tmp_path / "out").exists()
    writer.add(0, -torch.ones(1, 8, 8))
    hu = np.asanyarray(nib.load(writer.written[0]).dataobj)
    assert (hu[..., 0] == -1000).all() and (hu[..., 1] == 400).all()


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_oblong_masks_come_back_where_they_were(tmp_path: Path, fit: str) -> None:
    rows, columns = np.indices((60, 96))
    mask = (np.hypot(rows - 21, columns - 70) < 12).astype(np.uint8)
    save_png(tmp_path / "masks" / "a.png", mask)
    dataset = MaskSlices(tmp_path / "masks", square(48, fit))
    height, width = np.ptp(np.nonzero(dataset.labels[0, 0].numpy()), axis=1) + 1
    assert (height, width) == pytest.approx((11.5, 11.5) if fit == "pad" else (18.5, 11.5), abs=0.5)
    generated(dataset, tmp_path / "out")
    made = pixels(tmp_path / "out" / "a.png") > 127
    assert made.shape == mask.shape
    assert np.argwhere(made).mean(axis=0) == pytest.approx(np.argwhere(mask).mean(axis=0), abs=0.5)
    assert made.sum() == pytest.approx(mask.sum(), rel=0.05)


def test_empty_masks_are_said_where_training_dropped_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mask in {"a": pattern(10, 8), "b": 0 * pattern(10, 8), "c": 0 * pattern(10, 8)}.items():
        save_png(tmp_path / f"{name}.png", mask)
    MaskSlices(tmp_path, square(16), empty_masks="keep")
    assert not caplog.records
    MaskSlices(tmp_path, square(16), empty_masks="drop")
    (record,) = caplog.records
    assert record.getMessage().startswith("2 of 3 masks are empty, the first b: ")
    assert "--empty_masks keep" in record.getMessage()


def test_masks_go_through_the_models_own_transforms(tmp_path: Path) -> None:
    """As the training recorded them, in any list; earlier models say how slices became square."""
    mask = pattern(12, 8)
    save_png(tmp_path / "a.png", mask)
    keys = ["image", "label"]
    flip = {"target": "monai.transforms.Flipd", "arguments": {"keys": keys, "spatial_axis": 1}}
    resize = {"keys": keys, "spatial_size": [24, 16], "mode": "nearest"}
    lists: list[list[dict[str, Any]]] = [
        [flip, {"target": "monai.transforms.Resized", "arguments": resize}],
        [flip, {"target": "common.data.transforms.FitSquared", "arguments": {"keys": keys, "image_size": 6}}],
    ]
    window = {"target": "common.data.transforms.WindowHUd", "arguments": {"keys": "image"}}
    expected = [mask[:, ::-1].repeat(2, 0).repeat(2, 1), fit_mask(mask[:, ::-1], 12, "pad")]
    for transforms, label, fit in zip(lists, expected, ("stretch", "pad"), strict=True):
        info = {"preprocessing": [window, *transforms]}
        dataset = MaskSlices(tmp_path, preprocessing_of_model(info, keys, 12))
        assert np.array_equal(dataset[0]["label"][0], label) and dataset.fit == fit
    earlier = MaskSlices(tmp_path, preprocessing_of_model({}, keys, 12, fit="stretch"))
    assert np.array_equal(earlier[0]["label"][0], fit_mask(mask, 12, "stretch")) and earlier.fit == "stretch"
