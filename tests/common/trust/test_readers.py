from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundles.lung_two_stage.composition.shards import FileFormat, Member, ShardSet
from common.data.image_io import Pixels
from common.data.intensity import Standardiser, Window
from common.data.labels import LabelSet
from common.data.samples import Sample
from common.errors import UserError
from common.files import write_json
from common.trust.image_files import (
    expand_volumes,
    find_real_records,
    find_records,
    image_files,
    name_of,
)
from common.trust.readers import (
    ReadingSettings,
    ReadSlice,
    interpret_values,
    prepare,
    prepare_label,
    read_arrays,
    read_set,
    read_shards,
    standardize_slices,
)
from tests.common.trust.folders import SIDE, dicom_series, pictures, shard, textures, volume


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(48, 32), (32, 64), (32, 32)])
def test_labels_lie_where_their_images_do(fit: str, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[8:24, 8:20] = 1
    settings = ReadingSettings(16, fit=fit)
    image = prepare(Pixels(mask.astype(np.float32), False, (0.0, 1.0)), settings)
    label = prepare_label(mask, settings)
    assert image.shape == label.shape == (16, 16) and set(np.unique(label)) == {0, 1}
    assert np.abs((image > 0.5).astype(int) - label).sum() <= 0.1 * label.sum() + 1


def test_a_given_source_range_wins_and_unknown_fits_are_refused() -> None:
    pixels = Pixels(np.full((4, 4), 30.0, np.float32), False, (0.0, 255.0))
    assert prepare(pixels, ReadingSettings(4, source_range=(10, 50)))[0, 0] == pytest.approx(0.5)
    assert prepare(pixels._replace(is_hu=True), ReadingSettings(4, Window(0, 60)))[0, 0] == pytest.approx(0.5)
    with pytest.raises(UserError, match="fit 'squash' is unknown"):
        prepare_label(np.zeros((4, 4), np.uint8), ReadingSettings(4, fit="squash"))


def test_the_models_look_is_given_scan_by_scan_but_not_to_hu() -> None:
    look = Standardiser("histogram", Window(-1000, 400))
    look.fit({"p": [np.linspace(0, 0.5, 64).reshape(8, 8)]})
    unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    slices = [ReadSlice(unit, None, name, "p", "p", is_hu) for name, is_hu in (("a", False), ("b", True))]
    eight_bits, hu = standardize_slices(slices, look)
    assert eight_bits.unit.max() == pytest.approx(0.5) and hu.unit is unit and eight_bits.name == "a"
    assert standardize_slices(slices, None) == slices


SETTINGS = ReadingSettings(32, Window(-1000, 275))


@pytest.mark.parametrize(
    ("array", "is_hu", "limits"),
    [
        (np.array([[0, 90]], np.uint8), False, (0, 255)),
        (np.array([[0, 9000]], np.uint16), False, (0, 65535)),
        (np.array([[-900, 9]], np.int16), True, (0, 255)),
        (np.array([[0, 0.5]], np.float32), False, (0, 1)),
        (np.array([[-1, 0.5]], np.float64), False, (-1, 1)),
        (np.array([[-700.0, 40]], np.float32), True, (0, 255)),
    ],
)
def test_what_values_mean(array: np.ndarray, is_hu: bool, limits: tuple[float, float]) -> None:
    found = interpret_values(array, "made.npy")
    assert found.is_hu == is_hu and found.source_range == limits and found.values.dtype == np.float32


def test_a_bank_gives_its_gray_values_with_their_nodules_and_patients(tmp_path: Path) -> None:
    hu = textures(3, 0).astype(np.int16) * 5 - 1000
    np.save(tmp_path / "hu.npy", hu)
    alpha = np.zeros((3, 32, 32), np.uint8)
    alpha[1, :4, :6], alpha[1, 4, :6] = 128, 127
    np.save(tmp_path / "alpha.npy", alpha)
    records = [{"name": f"n{place}", "patient": patient} for place, patient in enumerate(["p1", "", "p1"])]
    (tmp_path / "records.json").write_text(json.dumps(records))
    found = read_arrays(tmp_path, SETTINGS)
    assert [each.patient for each in found] == ["p1", "hu", "p1"] and found[2].name == "hu.npy#000002"
    np.testing.assert_allclose(found[1].unit, textures(3, 0)[1] / 255, atol=1e-6)
    assert found[1].label is not None and found[1].label[:4, :6].all() and found[1].label.sum() == 24
    np.save(tmp_path / "alpha.npy", alpha[:2])
    with pytest.raises(UserError, match="2 entries for 3 images"):
        read_arrays(tmp_path, SETTINGS)
    (tmp_path / "records.json").write_text("[{}]")
    with pytest.raises(UserError, match="1 records for 3 images"):
        read_arrays(tmp_path, SETTINGS)


def test_files_of_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(UserError, match=r"a.npy: has shape \(2, 3, 4, 4\)"):
        read_arrays(tmp_path, SETTINGS)
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object))
    with pytest.raises(UserError, match=r"a.npy: cannot be read"):
        read_arrays(tmp_path, SETTINGS)
    with pytest.raises(UserError, match="no gray values"):
        interpret_values(np.zeros((2, 2), np.complex64), "made.npy")


SETTINGS_FILES = ReadingSettings(32)


def real_records(folder: Path, settings: ReadingSettings) -> list[Sample]:
    return find_real_records(folder, settings.kind, settings.patient_pattern, settings.info)


def test_images_at_any_depth_but_no_labels_sheets_or_hidden_files(tmp_path: Path) -> None:
    for folder in ("a/b", "labels", "a/masks", "alpha", ".hidden"):
        pictures(tmp_path / folder, 1, 0)
    for sheet in ("grid", "panel", "nearest"):
        pictures(tmp_path, 1, 0, sheet)
    assert image_files(tmp_path) == [tmp_path / "a" / "b" / "case0_000.png"]


def test_only_images_where_there_is_such_a_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "images", 2, 0)
    pictures(tmp_path / "other", 1, 1)
    records = find_records(tmp_path, None, SETTINGS_FILES.patient_pattern)
    assert [name_of(record, tmp_path) for record in records] == [
        "images/case0_000.png",
        "images/case1_000.png",
    ]
    assert [record.patient for record in records] == ["case0", "case1"]


def test_drawn_nodules_have_their_alpha_as_label_half_of_it_and_more(tmp_path: Path) -> None:
    pictures(tmp_path / "samples" / "solid", 2, 0, "sample{0:06d}")
    pictures(tmp_path / "alpha" / "solid", 2, 1, "sample{0:06d}")
    records = find_records(tmp_path, None, None)
    assert [name_of(record, tmp_path) for record in records] == [
        "samples/solid/sample000000.png",
        "samples/solid/sample000001.png",
    ]
    assert [record.mask for record in records] == sorted((tmp_path / "alpha" / "solid").iterdir())
    assert {record.mask_threshold for record in records} == {128}


def test_patients_that_show_the_same_are_one_person(tmp_path: Path) -> None:
    pictures(tmp_path / "covid", 3, 0)
    again = pictures(tmp_path / "covid", 1, 0, "other{0}_000")
    assert again.is_dir()
    samples = real_records(tmp_path, ReadingSettings(32, kind="images", fit="pad"))
    persons = {sample.patient: sample.unit for sample in samples}
    assert persons["case0"] == persons["other0"] != persons["case1"]
    assert len({sample.unit for sample in samples}) == 3


def test_the_central_slice_of_each_volume(tmp_path: Path) -> None:
    for name, depth in (("a", 5), ("b", 2)):
        volume(tmp_path / f"{name}.nii.gz", np.arange(8 * 8 * depth, dtype=np.int16).reshape(8, 8, depth))
    records = find_records(tmp_path, None, SETTINGS_FILES.patient_pattern)
    assert len(expand_volumes(records, "auto")) == 7
    assert [sample.index for sample in expand_volumes(records, "central")] == [2, 1]
    own = ReadingSettings(32, patient_pattern="(?P<patient>.)")
    assert [record.patient for record in find_records(tmp_path, None, own.patient_pattern)] == ["a", "b"]


def test_only_images_of_the_classes_that_the_model_learned(tmp_path: Path) -> None:
    pictures(tmp_path / "covid", 2, 0, "a{0}")
    pictures(tmp_path / "noncovid", 3, 1, "b{0}")
    learned = ReadingSettings.of({"fit": "pad", "classes": ["covid"]})
    assert [sample.category for sample in real_records(tmp_path, learned)] == ["covid", "covid"]
    assert (
        len(real_records(tmp_path, ReadingSettings.of({"fit": "pad", "classes": ["covid", "noncovid"]}))) == 5
    )
    assert len(real_records(tmp_path, ReadingSettings.of({"fit": "pad", "classes": ["elsewhere"]}))) == 5


def test_a_folder_with_one_dicom_series_is_one_image_of_the_patient_above_it(tmp_path: Path) -> None:
    for seed, patient in enumerate("AB"):
        dicom_series(tmp_path / "real" / patient / "CT", 3, seed)
    plain = ReadingSettings.of_any_generator(image_size=16)
    records = real_records(tmp_path / "real", plain)
    assert {record.image.name for record in records} == {"CT"}
    assert [record.patient for record in records] == ["A"] * 3 + ["B"] * 3
    assert [sample.index for sample in records] == [0, 1, 2] * 2


def test_dicom_files_of_several_series_in_one_folder_are_single_images(tmp_path: Path) -> None:
    for number in range(3):
        dicom_series(tmp_path, 1, number, f"drawn{number}")
    assert [file.name for file in image_files(tmp_path)] == [f"drawn{k}-0.dcm" for k in range(3)]


SETTINGS_SHARDS = ReadingSettings(32, Window(-1000, 275))


@pytest.mark.parametrize("name", ["npy", "png", "png16", "nifti"])
def test_what_the_two_stage_bundle_writes(tmp_path: Path, name: str) -> None:
    """In each of its formats, in Hounsfield units, the right way up."""
    hu, form = textures(2, 0).astype(np.int16) * 5 - 1000, FileFormat(name)
    mask = np.zeros((32, 32), np.uint8)
    mask[3, 5:9] = 1
    members = [
        Member(
            number,
            {
                f"image.{form.suffix}": form.encode_image(plane, 0.7),
                f"mask.{form.suffix}": form.encode_mask(mask, 0.7),
                "json": b'{"normal": {"patient": "p%d"}}' % number,
            },
        )
        for number, plane in enumerate(hu)
    ]
    ShardSet(tmp_path, 2, 2).write(0, members)
    greys = form.hu_window
    limits = None if greys is None else [greys.lower, greys.upper]
    write_json(tmp_path / "composites.json", {"window_hu": limits})
    found = read_shards(tmp_path, SETTINGS_SHARDS)
    for each, plane in zip(found, textures(2, 0), strict=True):
        np.testing.assert_allclose(each.unit, plane / 255, atol=0.003)
        assert each.is_hu and each.label is not None and np.array_equal(each.label, mask)
    assert [each.patient for each in found] == ["p0", "p1"]


def test_samples_without_image_or_with_another_mask_are_named(tmp_path: Path) -> None:
    plane = np.zeros((8, 8), np.int16)
    shard(tmp_path / "a.tar", {"000": {"mask.npy": plane, "json": {}}})
    with pytest.raises(UserError, match=r"a.tar#000: has no image among mask.npy, json"):
        read_shards(tmp_path, SETTINGS_SHARDS)
    shard(tmp_path / "a.tar", {"000": {"npy": plane, "mask.npy": plane[:4]}})
    with pytest.raises(UserError, match=r"a.tar#000: the mask is \(4, 8\)"):
        read_shards(tmp_path, SETTINGS_SHARDS)


def test_a_bare_array_is_the_image_and_its_own_patient(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {"x/007": {"npy": np.full((8, 8), -1000, np.int16)}})
    (found,) = read_shards(tmp_path, SETTINGS_SHARDS)
    assert found.name == found.patient == "a.tar#007" and found.label is None and found.unit.max() == 0


SMALL = ReadingSettings(image_size=SIDE)


def test_pictures_as_the_network_sees_them(tmp_path: Path) -> None:
    found = read_set(pictures(tmp_path, 3, 0), SMALL)
    expected = textures(3, 0).astype(np.float32) / 255 * 2 - 1
    assert found.images.shape == (3, 1, SIDE, SIDE) and found.images.dtype == torch.float32
    np.testing.assert_allclose(found.images[:, 0].numpy(), expected, atol=1e-6)
    assert list(found.names) == ["case0_000.png", "case1_000.png", "case2_000.png"]
    assert found.folder == str(tmp_path) and found.labels is None and found.structures == ()


def test_real_images_have_patients_and_synthetic_ones_are_their_own(tmp_path: Path) -> None:
    pictures(tmp_path / "a" / "deep", 2, 0, "case7_{0}")
    pictures(tmp_path / "b", 2, 1, "case8_{0}")
    pictures(tmp_path / "b", 1, 9, "grid")
    real, made = read_set(tmp_path, SMALL), read_set(tmp_path, SMALL, synthetic=True)
    assert list(real.patients) == ["case7", "case7", "case8", "case8"]
    assert list(made.patients) == list(made.names) == list(real.names)


def test_masks_in_the_folder_and_in_another(tmp_path: Path) -> None:
    pictures(tmp_path / "set" / "images", 3, 0)
    for place, side in enumerate((4, 8, 0)):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:side, :side] = 255
        for folder in ("set/masks", "conditions"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / folder / f"case{place}_000.png")
    found = read_set(tmp_path / "set", SMALL)
    assert found.labels is not None and found.labels.sum((1, 2, 3)).tolist() == [16, 64]
    assert found.structures == ("lesion",) and len(found) == 2  # the third shows no lesion
    pictures(tmp_path / "made", 1, 5, "case1_000_variant02")
    pictures(tmp_path / "made", 1, 6, "case0_000")
    beside = read_set(tmp_path / "made", SMALL, tmp_path / "conditions", synthetic=True)
    assert beside.labels is not None and beside.labels.sum((1, 2, 3)).tolist() == [16, 64]


def test_volumes_give_their_labelled_or_all_or_central_slices(tmp_path: Path) -> None:
    hu = (textures(5, 0).astype(np.int16) * 5 - 1000).transpose(1, 2, 0)
    mask = np.zeros_like(hu, dtype=np.uint8)
    mask[2:6, 3:9, 1:3] = 1
    volume(tmp_path / "images" / "p1.nii.gz", hu)
    volume(tmp_path / "masks" / "p1.nii.gz", mask)
    window = Window(-1000, 275)
    labelled = read_set(tmp_path, ReadingSettings(SIDE, window))
    np.testing.assert_allclose(labelled.images[:, 0].numpy(), textures(5, 0)[1:3] / 127.5 - 1, atol=1e-5)
    assert list(labelled.names) == ["images/p1.nii.gz#001", "images/p1.nii.gz#002"]
    assert len(read_set(tmp_path, ReadingSettings(SIDE, window, slices="all"))) == 5
    with pytest.raises(UserError, match="holds 1 image"):
        read_set(tmp_path, ReadingSettings(SIDE, window, slices="central"))


def test_shards_with_masks_and_patients(tmp_path: Path) -> None:
    hu = textures(3, 0).astype(np.int16) * 5 - 1000
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4, 5:9] = 2
    lungs = ["p1", "p2", "p1"]
    samples = {
        f"{place:09d}": {"image.npy": image, "mask.npy": mask, "json": {"normal": {"patient": lung}}}
        for place, (image, lung) in enumerate(zip(hu, lungs, strict=True))
    }
    shard(tmp_path / "000000.tar", samples)
    found = read_set(tmp_path, ReadingSettings(SIDE, Window(-1000, 275)))
    np.testing.assert_allclose(found.images[:, 0].numpy(), textures(3, 0) / 127.5 - 1, atol=1e-5)
    assert list(found.patients) == lungs and found.names[2] == "000000.tar#000000002"
    assert found.labels is not None and found.labels.sum((1, 2, 3)).tolist() == [4, 4, 4]
    assert list(read_set(tmp_path, SMALL, synthetic=True).patients) != lungs


def test_label_maps_go_through_the_store(tmp_path: Path) -> None:
    hu = (textures(4, 0).astype(np.int16) * 3 - 200).transpose(1, 2, 0)
    label = np.zeros_like(hu, dtype=np.uint8)
    label[2:6, 3:9, 1:4], label[10:12, 3:9, 2] = 1, 5
    volume(tmp_path / "images" / "p1.nii.gz", hu)
    volume(tmp_path / "labels" / "p1.nii.gz", label)
    info = {
        "image_size": SIDE,
        "intensity": {"kind": "window", "lower": -200, "upper": 565},
        "label_set": LabelSet().state(),
    }
    found = read_set(tmp_path, ReadingSettings.of(info))
    np.testing.assert_allclose(found.images[:, 0].numpy(), textures(4, 0)[1:] / 127.5 - 1, atol=1e-4)
    assert found.labels is not None and found.structures[:2] == ("LV", "RV")
    assert [sorted(part.unique().tolist()) for part in found.labels] == [[0, 1], [0, 1, 5], [0, 1]]
    alone = read_set(tmp_path / "images", ReadingSettings.of(info), synthetic=True)
    assert len(alone) == 4 and alone.labels is None


def test_what_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: no such folder"):
        read_set(tmp_path / "missing", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no images found"):
        read_set(tmp_path / "empty", SMALL)
    with pytest.raises(UserError, match="one: holds 1 image; at least 2"):
        read_set(pictures(tmp_path / "one", 1, 0), SMALL, synthetic=True)
    folder = pictures(tmp_path / "cut", 2, 0)
    (folder / "case1_000.png").write_bytes((folder / "case1_000.png").read_bytes()[:90])
    with pytest.raises(UserError, match=r"case1_000.png: cannot be read"):
        read_set(folder, SMALL, synthetic=True)
    values = textures(2, 0).astype(np.float32) / 255
    values[1, 3, 4] = np.nan
    (tmp_path / "nan").mkdir()
    np.save(tmp_path / "nan" / "made.npy", values)
    with pytest.raises(UserError, match=r"made.npy#000001: holds NaN"):
        read_set(tmp_path / "nan", SMALL)
    with pytest.raises(UserError, match=r"no label of that name in"):
        read_set(pictures(tmp_path / "two", 2, 0), SMALL, tmp_path / "nan")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "000000.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"000000.tar: cannot be read"):
        read_set(tmp_path / "shards", SMALL)


def test_what_stands_beside_a_model_says_how_to_read() -> None:
    plain = ReadingSettings.of({})
    assert (plain.image_size, plain.kind, plain.fit, plain.standardiser) == (128, "pairs", "stretch", None)
    look = Standardiser("landmarks", Window(-1000, 400)).state()
    images = ReadingSettings.of(
        {"image_size": 64, "window_hu": [-500, 100], "fit": "crop", "standardiser": look}, slices="central"
    )
    assert (images.image_size, images.window, images.fit) == (64, Window(-500, 100), "crop")
    assert images.kind == "images" and images.slices == "central"
    assert images.standardiser is not None and images.standardiser.state() == look
    heart = {"image_size": 32, "intensity": {"kind": "percentile", "lower": 1, "upper": 99}}
    assert ReadingSettings.of(heart).kind == "structures"
    masks = ReadingSettings.of({"image_size": 32, "fit": "pad", "empty_masks": "drop"})
    assert (masks.kind, masks.fit) == ("pairs", "pad")
    assert ReadingSettings.of({"image_size": [96, 96]}).image_size == 96


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="square images"):
        ReadingSettings.of({"image_size": [96, 64]})
    with pytest.raises(UserError, match="slices 'some' is unknown"):
        ReadingSettings(slices="some")
    with pytest.raises(UserError, match="image_size 0"):
        ReadingSettings(0)


def test_images_of_any_generator_are_padded_to_squares() -> None:
    plain = ReadingSettings.of_any_generator()
    assert (plain.image_size, plain.window, plain.fit) == (128, Window(-1000, 400), "pad")
    own = ReadingSettings.of_any_generator(Window(-160, 240), 96)
    assert (own.image_size, own.window) == (96, Window(-160, 240))
