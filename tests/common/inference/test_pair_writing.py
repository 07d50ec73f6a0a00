from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.structure_data import StructureData
from common.data.structures import LabelSet
from common.errors import UserError
from common.files import read_json
from common.inference.annotating import map_plane, values_of_classes
from common.inference.labels import LabelSlices
from common.inference.models import model_scale
from common.inference.pair_writing import PairWriter
from common.inference.sources import find_sources
from common.inference.variants import LabelVariants
from common.provenance import Provenance
from tests.common.inference.hearts import AFFINES, model_facts, save
from tests.common.inference.test_variants import STRONG, ball, slices

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


def written(made: LabelVariants, folder: Path, move: int = 0, **settings: Any) -> PairWriter:
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
    written(made, tmp_path / "out")
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
    written(made, tmp_path / "out", move=3)
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
    made = LabelVariants(slices(tmp_path / "in"), {"elastic": 0.05, "growth": 0.0, "mix": 0.5}, 2)
    written(made, tmp_path / "out")
    data = StructureData(tmp_path / "out", SIZE, tmp_path / "store", fractions=(0.34, 0.33, 0.33))
    assert {part[0].patient for part in data.splits.values()} == {"heart0", "heart1", "heart2"}
    assert len(data.train) == 2 * 6  # two variants of one patient, six slices with a heart each
    assert set(data.train[0]["label"].unique().tolist()) == {0.0, 1.0, 5.0}


def test_the_record_says_what_a_pair_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        save(tmp_path / "in" / f"heart{number}.nii.gz", ball(number))
    written(variants(tmp_path / "in"), tmp_path / "out")
    record = read_json(tmp_path / "out" / "pairs.json")
    first = record["pairs"][0]
    assert record["seed"] == 0 and first["name"] == "heart0_variant01.nii.gz"
    assert Path(first["source"]).name == "heart0.nii.gz" and Path(first["partner"]).name == "heart1.nii.gz"
    assert 0 < first["partner_weight"] < 0.8 and 0.5 < first["dice_with_source"] < 1
    assert "2 pairs of image (-200..600 HU)" in capsys.readouterr().out


def test_pictures_become_pictures(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(ball()[:28, :, 4]).save(tmp_path / "in" / "case_01.png")
    written(variants(tmp_path / "in"), tmp_path / "out")
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
    written(variants(tmp_path / "in"), tmp_path / "out", provenance=made_by)
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
        from common.data.store.request import Geometry

        geometry, shape, spacing = Geometry(SIZE), (4 * SIZE, 4 * SIZE, 1), (1.0, 1.0, 1.0)

    plane = map_plane(logits, Stored())  # type: ignore[arg-type]
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
