"""Label maps in, CT out: a network that shows the class it saw tells whether each voxel is in its place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from common.errors import UserError
from common.files import read_json
from common.inference.labels import LabelSlices
from common.inference.models import model_scale
from common.inference.sources import Source, find_sources
from common.inference.volume_writing import VolumeWriter
from common.provenance import Provenance
from tests.common.data.test_bad_input import write_dicom
from tests.common.inference.hearts import AFFINES, generated, heart, hu_of, model_facts, save


class Restless(nn.Module):
    """An image that jumps from slice to slice: each call is brighter or darker than the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, label: Tensor) -> Tensor:
        signs = torch.tensor([(-1.0) ** (self.calls + row) for row in range(len(label))])
        self.calls += len(label)
        return label / 14 - 0.5 + 0.1 * signs.view(-1, 1, 1, 1)  # 0.1 of [-1, 1] is 40 HU


def made(path: Path, output: Path, info: dict[str, Any], **options: Any) -> VolumeWriter:
    return generated(LabelSlices([Source(path)], info), output, info, **options)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("affine", AFFINES)
def test_volumes_return_with_shape_affine_and_place(tmp_path: Path, affine: str, axis: str) -> None:
    label = heart(9, 8, 7)
    path = save(tmp_path / "labels" / "case.nii.gz", label, AFFINES[affine])
    writer = made(path, tmp_path / "out", model_facts(72, axis=axis))
    assert writer.written == [tmp_path / "out" / "case.nii.gz"]
    image = nib.load(writer.written[0])
    assert image.get_data_dtype() == np.int16 and image.shape == label.shape
    np.testing.assert_allclose(image.affine, AFFINES[affine], atol=1e-6)
    hu = np.asanyarray(image.dataobj)
    assert hu.min() == -200 and hu.max() <= 600
    near = (
        np.abs(hu.astype(int) - hu_of(label)) < 100
    )  # linear resizing blurs borders; classes are 114 HU apart
    assert near.mean() > 0.9


@pytest.mark.parametrize("affine", AFFINES)
def test_without_resizing_every_voxel_is_exact(tmp_path: Path, affine: str) -> None:
    label = heart(8, 8, 8)
    path = save(tmp_path / "labels" / "case.nii", label, AFFINES[affine])
    for axis in ("axial", "coronal", "sagittal"):
        writer = made(path, tmp_path / axis, model_facts(8, axis=axis))
        assert writer.written[0].name == "case.nii"
        assert (np.asanyarray(nib.load(writer.written[0]).dataobj) == hu_of(label)).all()


def test_in_plane_spacing_crops_and_comes_back(tmp_path: Path) -> None:
    """2 x 1 mm pixels at 1 mm, 12 pixels wide: the middle is drawn, the rest is the window's lower end."""
    label = np.full((9, 20, 3), 7, np.uint8)
    path = save(tmp_path / "labels" / "case.nii.gz", label, np.diag([-2.0, -1.0, 4.0, 1.0]))
    writer = made(path, tmp_path / "out", model_facts(12, spacing=1.0))
    hu = np.asanyarray(nib.load(writer.written[0]).dataobj)
    assert hu.shape == label.shape
    assert (hu[2:7, 4:16] == 600).all() and (hu[:, :4] == -200).all() and (hu[:, 16:] == -200).all()
    assert (hu[0] == -200).all() and (hu[-1] == -200).all()


def save_by_itk(path: Path, label: np.ndarray) -> Path:
    volume = itk.image_from_array(np.ascontiguousarray(label.T))
    volume.SetSpacing((1.5, 1.25, 3.0))
    volume.SetOrigin((10.0, -20.0, 30.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(volume, str(path))
    return path


def test_mhd_labels_become_nifti_at_the_same_place(tmp_path: Path) -> None:
    label = heart(8, 8, 6)
    path = save_by_itk(tmp_path / "labels" / "case.mhd", label)
    writer = made(path, tmp_path / "out", model_facts(8))
    image = nib.load(writer.written[0])
    assert writer.written[0].name == "case.nii.gz"
    np.testing.assert_allclose(
        image.affine, [[-1.5, 0, 0, -10], [0, -1.25, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]], atol=1e-6
    )
    assert (np.asanyarray(image.dataobj) == hu_of(label)).all()


def test_a_folder_of_dicom_labels_becomes_one_volume(tmp_path: Path) -> None:
    label = heart(8, 8, 6)
    series = tmp_path / "labels" / "case"
    write_dicom(series, label.astype(np.int16))
    writer = made(series, tmp_path / "out", model_facts(8))
    image = nib.load(writer.written[0])
    assert writer.written[0].name == "case.nii.gz" and image.shape == (8, 8, 6)
    np.testing.assert_allclose(np.diag(image.affine), [-0.7, -0.7, 2.5, 1.0], atol=1e-6)
    assert (np.asanyarray(image.dataobj) == hu_of(label)).all()
    with pytest.raises(UserError, match="choose another --output_dir"):
        made(series, series, model_facts(8))


def test_pictures_return_as_pictures(tmp_path: Path) -> None:
    label = heart(9, 8, 1)[..., 0]
    (tmp_path / "labels").mkdir()
    for name in ("a_000.png", "a_001.png"):
        Image.fromarray(label).save(tmp_path / "labels" / name)
    info = model_facts(72)
    dataset = LabelSlices(find_sources(input_dir=tmp_path / "labels"), info)
    generated(dataset, tmp_path / "out", info)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"a_00{number}.{kind}" for number in range(2) for kind in ("json", "png")
    ]
    with Image.open(tmp_path / "out" / "a_001.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == label.shape and pixels.dtype == np.uint8
    assert (np.abs(pixels - label * (255 / 7)) < 36.5).mean() > 0.85 and pixels.max() > 200


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "labels" / "case.nii.gz", heart(9, 8, 7))
    digests = set()
    for name in ("first", "second"):
        made(path, tmp_path / name, model_facts(16), smooth_slices=1.0)
        files = [tmp_path / name / file for file in ("case.nii.gz", "flicker.json")]
        digests.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
    assert len(digests) == 1


def test_flicker_is_measured_and_smoothing_lowers_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.zeros((8, 8, 9), np.uint8)
    label[2:6, 2:7] = 1
    path, info = save(tmp_path / "labels" / "case.nii.gz", label), model_facts(8)
    plain = made(path, tmp_path / "plain", info, network=Restless())
    smooth = made(path, tmp_path / "smooth", info, network=Restless(), smooth_slices=1.0)
    assert plain.flicker["case.nii.gz"].keys() == {"generated"}
    found = read_json(tmp_path / "smooth" / "flicker.json")
    assert (found["unit"], found["smooth_slices"]) == ("HU", 1.0)
    kinds = found["volumes"]["case.nii.gz"]
    assert kinds["generated"]["structures"] == {
        **{"across": pytest.approx(80, abs=1), "within": 0.0, "ratio": None, "columns": None},
        "voxels": 7 * 4 * 5,
    }
    assert kinds["smoothed"]["LV"]["across"] < 0.2 * kinds["generated"]["LV"]["across"]
    written = np.asanyarray(nib.load(smooth.written[0]).dataobj)
    inside, outside = written[label == 1], written[label == 0]
    assert inside.min() > outside.max()  # the border is as sharp as it was
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith("case.nii.gz: flicker in HU: generated 80.0 across slices, 0.0 within")
    assert "; smoothed " in line


def test_the_real_image_is_measured_by_the_same_rule(tmp_path: Path) -> None:
    label = np.ones((8, 8, 9), np.uint8)
    path = save(tmp_path / "labels" / "label.nii.gz", label)
    real = save(tmp_path / "ct.nii.gz", np.where(np.arange(9) % 2, 100, -2000).astype(np.int16) * label)
    info = model_facts(8)
    writer = generated(LabelSlices([Source(path, real)], info), tmp_path / "out", info)
    assert writer.flicker["label.nii.gz"]["real"]["structures"].across == 300  # from -200, the window's end
    ramp = np.arange(-100, 9 * 64 - 100, dtype=np.int16).reshape(8, 8, 9)
    other = save(tmp_path / "other.nii.gz", ramp, np.eye(4))
    with pytest.raises(UserError, match=r"label\.nii\.gz: its affine differs from that of .*other\.nii\.gz"):
        LabelSlices([Source(path, other)], info)


def test_a_model_without_hu_writes_twelve_bits_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "labels" / "case.nii.gz", heart(8, 8, 4))
    info = model_facts(8, is_hu=False, intensity={"kind": "percentile", "lower": 1.0, "upper": 99.0})
    del info["window_hu"]
    writer = made(path, tmp_path / "out", info)
    values = np.asanyarray(nib.load(writer.written[0]).dataobj)
    assert values.dtype == np.int16 and (values.min(), values.max()) == (0, 4095)
    told = "1 images (0..4095 units, the percentiles 1 and 99 of what the model learned from: no HU)"
    assert told in capsys.readouterr().out


def test_one_slice_is_written_and_has_no_flicker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "labels" / "case.nii.gz", heart(8, 8, 1))
    writer = made(path, tmp_path / "out", model_facts(8), smooth_slices=2.0)
    assert nib.load(writer.written[0]).shape == (8, 8, 1)
    assert "generated none to measure; smoothed none to measure" in capsys.readouterr().out


def test_an_image_as_condition_is_written_but_not_smoothed(tmp_path: Path) -> None:
    image = np.arange(-400, 624, dtype=np.int16).reshape(8, 8, 16)
    path, info = save(tmp_path / "native.nii.gz", image), model_facts(8, condition="image")
    dataset = LabelSlices([Source(path)], info)
    writer = generated(dataset, tmp_path / "out", info, network=nn.Identity())
    written = np.asanyarray(nib.load(writer.written[0]).dataobj)
    assert np.abs(written - np.clip(image, -200, 600)).max() <= 1
    with pytest.raises(UserError, match="smooth_slices stops at the borders of labels"):
        VolumeWriter(dataset, tmp_path / "out", model_scale(info), smooth_slices=1.0)


def test_results_never_lie_among_the_labels(tmp_path: Path) -> None:
    path, info = save(tmp_path / "labels" / "case.nii.gz", heart(8, 8, 4)), model_facts(8)
    dataset = LabelSlices([Source(path)], info)
    for folder in (tmp_path / "labels", tmp_path / "labels" / ".." / "labels"):
        with pytest.raises(UserError, match="holds the labels themselves; choose another --output_dir"):
            VolumeWriter(dataset, folder, model_scale(info))
    with pytest.raises(UserError, match="smooth_slices -1"):
        VolumeWriter(dataset, tmp_path / "out", model_scale(info), smooth_slices=-1)


def test_volumes_and_pictures_say_that_they_are_synthetic(tmp_path: Path) -> None:
    save(tmp_path / "labels" / "case.nii.gz", heart(8, 8, 2))
    Image.fromarray(heart(9, 8, 1)[..., 0]).save(tmp_path / "labels" / "flat.png")
    (tmp_path / "model.pt").write_bytes(b"weights")
    made_by, info = Provenance("painter", None, tmp_path / "model.pt", 3), model_facts(16)
    dataset = LabelSlices(find_sources(input_dir=tmp_path / "labels"), info)
    generated(dataset, tmp_path / "out", info, provenance=made_by)
    header = nib.load(tmp_path / "out" / "case.nii.gz").header
    assert header["descrip"].item() == b"synthetic, painter"
    with Image.open(tmp_path / "out" / "flat.png") as picture:
        assert json.loads(picture.info["Comment"]) == made_by.record("flat.png")
    for name, source in {"case": "case.nii.gz", "flat": "flat.png"}.items():
        assert read_json(tmp_path / "out" / f"{name}.json") == made_by.record(source, smooth_slices=0.0)


def test_nothing_is_there_before_the_last_slice(tmp_path: Path) -> None:
    path, info = save(tmp_path / "labels" / "case.nii.gz", heart(8, 8, 2)), model_facts(8)
    writer = VolumeWriter(LabelSlices([Source(path)], info), tmp_path / "out", model_scale(info))
    writer.add(1, torch.ones(1, 8, 8))
    assert not (tmp_path / "out").exists()
    writer.add(0, -torch.ones(1, 8, 8))
    hu = np.asanyarray(nib.load(writer.written[0]).dataobj)
    assert (hu[..., 0] == -200).all() and (hu[..., 1] == 600).all()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["case.json", "case.nii.gz"]
