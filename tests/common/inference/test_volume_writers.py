from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from common.data.intensity import Window
from common.data.labels import LabelSet
from common.data.slice_cache import CachedVolume, SliceCache
from common.data.slice_geometry import Geometry, Intensity, Request, from_planes
from common.data.volume_io import open_volume
from common.errors import UserError
from common.files import read_json
from common.inference.checkpoint import model_scale
from common.inference.datasets import LabelSlices, LabelVariants, Source, find_sources
from common.inference.volume_writers import (
    PairWriter,
    VolumeWriter,
    condition_planes,
    drawn_label_plane,
    image_plane,
    image_planes,
    quantized,
    real_planes,
    values_of_classes,
)
from common.provenance import Provenance
from tests.common.data.made_sets import structure_data
from tests.common.data.made_volumes import write_dicom
from tests.common.inference.hearts import AFFINES, generated, heart, hu_of, model_facts, save
from tests.common.inference.test_datasets import STRONG, ball, slices_variants

INFO = {"window_hu": [-1000.0, 400.0]}


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
    import itk

    volume = itk.image_from_array(np.ascontiguousarray(label.T))
    volume.SetSpacing((1.5, 1.25, 3.0))
    volume.SetOrigin((10.0, -20.0, 30.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    itk.imwrite(volume, str(path))
    return path


@pytest.mark.slow  # itk takes seconds to import
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
    with pytest.raises(UserError, match=r"other\.nii\.gz: its affine is the identity.*label\.nii\.gz has"):
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


SIZE, CLASSES = 32, 7
MMWHS = np.array([0, 500, 600, 420, 550, 205, 820, 850], np.uint16)


def variants(folder: Path, perturb: Any = None, **facts: Any) -> LabelVariants:
    sources = find_sources(input_dir=folder)
    label_map = facts.pop("label_map", None)
    return LabelVariants(LabelSlices(sources, model_facts(SIZE, **facts), label_map), perturb or STRONG)


def drawn(made: LabelVariants, position: int, move: int = 0) -> torch.Tensor:
    """What a generator might draw: class k as gray k / K, and the map itself, both moved to the right."""
    label = torch.roll(made[position]["label"], move, dims=2)  # (1, S, S)
    classes = len(made.classes)
    logits = [torch.where(label == k, 8.0, 0.0) for k in range(classes + 1)]
    return torch.cat([2 * label / classes - 1, *logits])


def written_pair_writing(made: LabelVariants, folder: Path, move: int = 0, **settings: Any) -> PairWriter:
    writer = PairWriter(made, folder, model_scale(model_facts(SIZE)), **settings)
    for position in range(len(made)):
        writer.add(position, drawn(made, position, move))
    writer.report()
    return writer


@pytest.mark.parametrize("axes", list(AFFINES))
def test_pairs_lie_where_their_label_lies_in_its_values(tmp_path: Path, axes: str) -> None:
    for number in range(2):
        save(tmp_path / "in" / f"heart{number}.nii.gz", MMWHS[ball(number)], AFFINES[axes])
    made = variants(tmp_path / "in")
    written_pair_writing(made, tmp_path / "out")
    source = nib.load(tmp_path / "in" / "heart0.nii.gz")
    image, label = (
        nib.load(tmp_path / "out" / kind / "heart0_variant01.nii.gz") for kind in ("images", "labels")
    )
    for pair in (image, label):
        assert pair.shape == source.shape and np.allclose(pair.affine, source.affine, atol=1e-4)
    assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint16
    values = np.asanyarray(label.dataobj)
    assert set(np.unique(values)) == {0, 500, 205}
    hu = np.asanyarray(image.dataobj)
    for value, index in ((500, 1), (205, 5), (0, 0)):
        assert np.median(hu[values == value]) == pytest.approx(-200 + 800 * index / CLASSES, abs=1)
    assert not np.array_equal(values, np.asanyarray(source.dataobj))


def test_the_map_is_the_one_the_generator_drew(tmp_path: Path) -> None:
    save(tmp_path / "in" / "heart.nii.gz", ball())
    made = variants(tmp_path / "in", {"elastic": 0.0, "growth": 0.0})
    written_pair_writing(made, tmp_path / "out", move=3)
    label = np.asanyarray(nib.load(tmp_path / "out" / "labels" / "heart_variant01.nii.gz").dataobj)
    assert np.array_equal(
        label, np.roll(ball(), 3, axis=0)
    )  # columns run to the patient's left: the first axis


def test_a_generator_of_images_alone_takes_the_perturbed_map(tmp_path: Path) -> None:
    save(tmp_path / "in" / "heart.nii.gz", ball())
    made = variants(tmp_path / "in")
    writer = PairWriter(made, tmp_path / "out", model_scale(model_facts(SIZE)))
    for position in range(len(made)):
        writer.add(position, drawn(made, position)[:1])
    label = np.asanyarray(nib.load(tmp_path / "out" / "labels" / "heart_variant01.nii.gz").dataobj)
    conditions = np.stack([made.condition(position) for position in range(len(made))])
    assert np.array_equal(label.transpose(2, 1, 0), conditions)
    with pytest.raises(UserError, match="3 channels"):
        writer.add(0, torch.zeros(3, SIZE, SIZE))


def test_the_pairs_are_a_data_set(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"heart{number}_label.nii.gz", MMWHS[ball(number)])
    made = LabelVariants(slices_variants(tmp_path / "in"), {"elastic": 0.05, "growth": 0.0, "mix": 0.5}, 2)
    written_pair_writing(made, tmp_path / "out")
    data = structure_data(tmp_path / "out", SIZE, tmp_path / "store", fractions=(0.34, 0.33, 0.33))
    assert {part[0].patient for part in data.splits.values()} == {"heart0", "heart1", "heart2"}
    assert len(data.train) == 2 * 6  # two variants of one patient, six slices with a heart each
    assert set(data.train[0]["label"].unique().tolist()) == {0.0, 1.0, 5.0}


def test_the_record_says_what_a_pair_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        save(tmp_path / "in" / f"heart{number}.nii.gz", ball(number))
    written_pair_writing(variants(tmp_path / "in"), tmp_path / "out")
    record = read_json(tmp_path / "out" / "pairs.json")
    first = record["pairs"][0]
    assert record["seed"] == 0 and first["name"] == "heart0_variant01.nii.gz"
    assert Path(first["source"]).name == "heart0.nii.gz" and Path(first["partner"]).name == "heart1.nii.gz"
    assert 0 < first["partner_weight"] < 0.8 and 0.5 < first["dice_with_source"] < 1
    assert "2 pairs of image (-200..600 HU)" in capsys.readouterr().out


def test_pictures_become_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(ball()[:28, :, 4]).save(tmp_path / "in" / "case_01.png")
    written_pair_writing(variants(tmp_path / "in"), tmp_path / "out")
    for kind in ("images", "labels"):
        with Image.open(tmp_path / "out" / kind / "case_01_variant01.png") as picture:
            assert picture.size == (32, 28) and picture.mode == "L"
            values = set(np.unique(np.asarray(picture)))
    assert values == {0, 1, 5}


@pytest.mark.parametrize("suffix", [".nii.gz", ".png"])
def test_images_and_maps_say_that_they_are_synthetic(tmp_path: Path, suffix: str) -> None:
    made_by = Provenance("painter", None, None, 0)
    for number in range(2):
        if suffix == ".png":
            (tmp_path / "in").mkdir(exist_ok=True)
            Image.fromarray(ball(number)[:28, :, 4]).save(tmp_path / "in" / f"heart{number}.png")
        else:
            save(tmp_path / "in" / f"heart{number}.nii.gz", ball(number))
    written_pair_writing(variants(tmp_path / "in"), tmp_path / "out", provenance=made_by)
    for kind in ("images", "labels"):
        path = tmp_path / "out" / kind / f"heart1_variant01{suffix}"
        if suffix == ".png":
            with Image.open(path) as picture:
                assert picture.info["Description"] == "synthetic, painter"
        else:
            assert nib.load(path).header["descrip"].item() == b"synthetic, painter"
    facts = {"variant": "heart1_variant01", "partner": f"heart0{suffix}"}
    record = read_json(tmp_path / "out" / "images" / "heart1_variant01.json")
    assert record == made_by.record(f"heart1{suffix}", **facts)


def test_a_finer_file_gets_smooth_borders() -> None:
    """A border between pixels of the network lies between them in the file too."""
    logits = torch.zeros(3, SIZE, SIZE)
    logits[2, :, :10] = 9.0
    logits[1, :, 10:] = 9.0
    logits[2, :, 10], logits[1, :, 10] = 1.0, 0.0  # column 10 is rather class 1 than background

    class Stored:
        from common.data.slice_geometry import Geometry

        geometry, shape, spacing = Geometry(SIZE), (4 * SIZE, 4 * SIZE, 1), (1.0, 1.0, 1.0)

    plane = drawn_label_plane(logits, Stored())  # type: ignore[arg-type]
    assert plane.shape == (128, 128) and set(np.unique(plane)) == {0, 1}
    assert 42 <= np.count_nonzero(plane[64]) <= 46


def test_values_follow_the_file(tmp_path: Path) -> None:
    places = {"mmwhs": MMWHS[ball()], "counted": ball(), "own": ball()}
    made = {}
    for name, label in places.items():
        save(tmp_path / name / "heart.nii.gz", label)
        map_ = "{1: whole_heart, 5: Ao}" if name == "own" else None
        made[name] = variants(tmp_path / name, coarse=True, label_map=map_).variants[0].file
    classes = LabelSet(coarse=True).classes
    assert values_of_classes(made["mmwhs"], classes).tolist() == [*MMWHS, 1]
    assert values_of_classes(made["counted"], classes).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 2]
    assert values_of_classes(made["own"], classes).tolist() == [0, 500, 600, 420, 550, 205, 5, 850, 1]


def test_the_labels_own_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "set" / "labels" / "heart.nii.gz", ball())
    with pytest.raises(UserError, match="holds the labels themselves"):
        PairWriter(variants(tmp_path / "set" / "labels"), tmp_path / "set", model_scale(model_facts(SIZE)))


SCALE = Window(-200, 600)


def stored(path: Path, kind: str, geometry: Geometry) -> CachedVolume:
    request = Request(path, kind, Intensity() if kind == "image" else None)
    return SliceCache(path.parent / "store", geometry).convert([request])[0]


def test_a_prediction_is_kept_in_sixteen_bits() -> None:
    prediction = torch.tensor([[[-1.0, 0.0], [1.0, 1.5]], [[7.0, 7.0], [7.0, 7.0]]])  # 2 channels
    squares = quantized(prediction)
    assert squares.dtype == np.uint16 and squares.tolist() == [[0, 32768], [65535, 65535]]


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_squares_return_to_their_planes(tmp_path: Path, axis: str) -> None:
    label = stored(save(tmp_path / "a.nii.gz", heart(9, 8, 7)), "label", Geometry(24, axis))
    squares = [np.full((24, 24), 1000 * n, np.uint16) for n in range(label.depth)]
    planes = image_planes(squares, label, SCALE)
    assert planes.dtype == np.int16
    expected = np.rint(-200 + 800 * 1000 * np.arange(label.depth) / 65535)
    assert (planes == expected[:, None, None]).all()
    assert from_planes(planes, axis).shape == open_volume(tmp_path / "a.nii.gz").array.shape


def test_beyond_the_crop_is_the_lower_end(tmp_path: Path) -> None:
    label = stored(save(tmp_path / "a.nii.gz", heart(12, 12, 2)), "label", Geometry(8, spacing=1.5))
    planes = image_planes([np.full((8, 8), 65535, np.uint16)] * 2, label, SCALE)
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
    path = save(tmp_path / "a.nii.gz", np.arange(-500, 500, 10, dtype=np.int16).reshape(5, 5, 4))
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
    plane = image_plane(np.full((8, 8), 32768, np.uint16), label)
    assert plane.dtype == np.float32 and plane.shape == (8, 9)  # LPS: the file's first axis is the columns
    assert np.allclose(plane, 0.5, atol=1e-4)
