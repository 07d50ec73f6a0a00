from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bundles.lung_two_stage.composition.shards import FileFormat, Member, ShardSet
from common.data.image_io import Pixels
from common.data.intensity import Standardiser, Window
from common.errors import UserError
from common.files import write_json
from common.trust.readers import (
    ReadingSettings,
    ReadSlice,
    interpret_values,
    prepare,
    prepare_label,
    read_arrays,
    read_shards,
    standardize_slices,
)
from tests.common.trust.folders import shard, textures


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
    found = read_shards(tmp_path, SETTINGS)
    for each, plane in zip(found, textures(2, 0), strict=True):
        np.testing.assert_allclose(each.unit, plane / 255, atol=0.003)
        assert each.is_hu and each.label is not None and np.array_equal(each.label, mask)
    assert [each.patient for each in found] == ["p0", "p1"]


def test_samples_without_image_or_with_another_mask_are_named(tmp_path: Path) -> None:
    plane = np.zeros((8, 8), np.int16)
    shard(tmp_path / "a.tar", {"000": {"mask.npy": plane, "json": {}}})
    with pytest.raises(UserError, match=r"a.tar#000: has no image among mask.npy, json"):
        read_shards(tmp_path, SETTINGS)
    shard(tmp_path / "a.tar", {"000": {"npy": plane, "mask.npy": plane[:4]}})
    with pytest.raises(UserError, match=r"a.tar#000: the mask is \(4, 8\)"):
        read_shards(tmp_path, SETTINGS)


def test_a_bare_array_is_the_image_and_its_own_patient(tmp_path: Path) -> None:
    shard(tmp_path / "a.tar", {"x/007": {"npy": np.full((8, 8), -1000, np.int16)}})
    (found,) = read_shards(tmp_path, SETTINGS)
    assert found.name == found.patient == "a.tar#007" and found.label is None and found.unit.max() == 0


def test_what_stands_beside_a_model_says_how_to_read() -> None:
    plain = ReadingSettings.of({})
    assert (plain.image_size, plain.kind, plain.fit, plain.standardiser) == (128, "pairs", "stretch", None)
    look = Standardiser("landmarks", Window(-1000, 400)).state()
    facts = {"image_size": 64, "window_hu": [-500, 100], "fit": "crop", "standardiser": look}
    images = ReadingSettings.of({**facts, "layer": "nodules"})
    assert (images.image_size, images.window, images.fit) == (64, Window(-500, 100), "crop")
    assert images.kind == "images" and images.empty_labels and not plain.empty_labels
    assert images.standardiser is not None and images.standardiser.state() == look
    heart = {"image_size": 32, "intensity": {"kind": "percentile", "lower": 1, "upper": 99}}
    assert ReadingSettings.of(heart).kind == "structures"
    masks = ReadingSettings.of({"image_size": 32, "fit": "pad", "empty_masks": "drop"})
    assert (masks.kind, masks.fit) == ("pairs", "pad")
    assert ReadingSettings.of({"image_size": [96, 96]}).image_size == 96


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="square images"):
        ReadingSettings.of({"image_size": [96, 64]})
    with pytest.raises(UserError, match="image_size 0"):
        ReadingSettings(0)


def test_images_of_any_generator_are_padded_to_squares() -> None:
    plain = ReadingSettings.of_any_generator()
    assert (plain.image_size, plain.window, plain.fit) == (128, Window(-1000, 400), "pad")
    own = ReadingSettings.of_any_generator(Window(-160, 240), 96)
    assert (own.image_size, own.window) == (96, Window(-160, 240))
