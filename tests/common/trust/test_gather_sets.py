from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.intensity import Window
from common.data.samples import Sample
from common.data.splits import RULE, split_by_patient
from common.errors import UserError
from common.files import write_json
from common.inference.datasets import LabelSlices, Source
from common.paths import repository_root
from common.trust import gather_sets as gathering
from common.trust.gather_sets import (
    Options,
    check_sets,
    choose_conditions,
    config_of,
    draws_from_noise,
    generate,
    write_conditions,
)
from common.trust.image_sets import Sets
from common.trust.readers import STRUCTURES, ReadingSettings
from tests.common.trust.made import a_set, made, pictures, sets_with


def refused(sets: Sets) -> str:
    with pytest.raises(UserError) as caught:
        check_sets(sets)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sets_that_cannot_be_compared_are_named() -> None:
    good = sets_with(pictures(6, 2), 6, 6)
    check_sets(good)
    broken = pictures(3, 2)
    broken[1, 0, 3, 3] = torch.nan
    assert refused(replace(good, synthetic=a_set(broken, "synthetic"))).startswith(
        "synthetic: synthetic_001.png holds NaN"
    )
    assert refused(sets_with(pictures(1, 2))) == "synthetic: holds 1 image; at least 2 are needed"
    small = refused(sets_with(torch.nn.functional.avg_pool2d(pictures(6, 2), 2)))
    assert small == "synthetic: images of 16 x 16 pixels but 32 x 32 in real; read both at one size"
    masks = refused(sets_with((pictures(6, 2) > 0).float() * 2 - 1))
    assert masks.startswith("synthetic: most images have no more than 16 gray values, as masks do")
    check_sets(sets_with((pictures(6, 2) > 0).float() * 2 - 1, 6, 6), drawn=True)


def test_equal_sets_shared_images_and_shared_patients() -> None:
    same = sets_with(pictures(60, 0).flip(0))
    assert refused(same) == "synthetic: holds the same 60 images as real; give two different sets"
    check_sets(sets_with(pictures(60, 0)[:59]))  # copies are for the release gate to find
    good = sets_with(pictures(6, 2), 6, 6)
    other = pictures(6, 1)
    other[2] = pictures(6, 0)[4]
    shared = refused(replace(good, heldout=a_set(other, "heldout")))
    assert shared.startswith("heldout: heldout_002.png is the same image as real_004.png in real")
    patients = a_set(pictures(6, 1), "heldout", ["a", "real1", "b", "b", "c", "real2"])
    assert refused(replace(good, heldout=patients)).startswith(
        "heldout: patient real1 is in real too (2 in all)"
    )


PLACES: dict[str, Any] = {"bundle": Path("bundle"), "real": Path("real"), "output": Path("report.html")}
NO_BUNDLE: dict[str, Any] = {**PLACES, "bundle": None, "heldout": Path("others")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**PLACES, "sections": ["looks"]}, "sections looks: choose of fidelity"),
        ({**PLACES, "sections": ["fidelity"], "release": Path("out")}, "take privacy into --sections"),
        ({**PLACES, "release": Path("out"), "generate": 3}, "give with --synthetic a folder"),
        ({**PLACES, "window": Window(-900, 100)}, "--window: the bundle's model says how images are read"),
        ({**NO_BUNDLE, "heldout": None}, "give those it has not seen with --heldout"),
        ({**NO_BUNDLE, "generate": 3}, "--generate needs the bundle"),
        ({**NO_BUNDLE, "ckpt_path": Path("model.pt")}, "--ckpt_path needs the bundle"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_the_offset_reaches_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def read(_folder: Path, settings: ReadingSettings) -> None:
        raise Asked(settings.hu_offset)

    monkeypatch.setattr(gathering, "read_set", read)
    with pytest.raises(Asked, match="-1024"):
        gathering.gather(Options(**PLACES, hu_offset=-1024), tmp_path / "model.pt", tmp_path)


BUNDLES = repository_root() / "bundles"


def test_half_of_the_conditions_are_of_training_patients() -> None:
    real, heldout = made("real", 20, 1), made("heldout", 6, 2)
    names = choose_conditions(real, heldout, 8, 0).names
    assert [name[:4] for name in names] == ["real"] * 4 + ["held"] * 4
    assert names == choose_conditions(real, heldout, 8, 0).names
    assert names != choose_conditions(real, heldout, 8, 1).names
    many = choose_conditions(real, heldout, 22, 0)
    assert sum(name.startswith("held") for name in many.names) == 6 and len(many) == 22
    assert len(choose_conditions(real, heldout, 100, 0)) == 26
    assert choose_conditions(replace(real, labels=None), heldout, 4, 0) is None


def test_masks_are_written_white(tmp_path: Path) -> None:
    conditions = made("real", 3, 1)
    files = sorted(write_conditions(conditions, tmp_path, ReadingSettings()).iterdir())
    assert [file.name for file in files] == [f"condition00000{k}.png" for k in range(3)]
    for file, label in zip(files, conditions.labels, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)), label[0].numpy() * 255)


@pytest.mark.parametrize(
    ("label_map", "values"), [(None, [0, 1, 5]), ({"205": "Myo", "500": "LV"}, [0, 500, 205])]
)
def test_structures_are_written_as_the_model_reads_them(
    tmp_path: Path, label_map: dict[str, str] | None, values: list[int]
) -> None:
    info = {"label_set": {"classes": ["LV", "Myo"], "label_map": label_map}}
    labels = torch.zeros(1, 1, 8, 8)
    labels[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 2.0])
    conditions = replace(made("real", 1, 1), labels=labels, structures=("LV", "Myo"))
    folder = write_conditions(conditions, tmp_path, ReadingSettings(kind=STRUCTURES, info=info))
    assert np.asarray(Image.open(folder / "condition000000.png"))[0, :3].tolist() == values


def test_structures_of_a_certain_scale_are_written_with_it(tmp_path: Path) -> None:
    info = {"label_set": {"classes": ["LV", "Myo"], "label_map": None}, "spacing": 2.5, "image_size": 8}
    labels = torch.zeros(1, 1, 8, 8)
    labels[0, 0, 1, 5], labels[0, 0, 6, :3] = 1, 2
    conditions = replace(made("real", 1, 1), labels=labels, structures=("LV", "Myo"))
    reading = ReadingSettings(8, kind=STRUCTURES, info=info)
    (file,) = write_conditions(conditions, tmp_path, reading).iterdir()
    image = nib.load(file)
    assert image.header.get_zooms() == (2.5, 2.5, 1.0)
    slices = LabelSlices([Source(file)], info)  # as the bundle's inference reads it
    assert torch.equal(slices[0]["label"], labels[0])
    with pytest.raises(UserError, match="coronal slices of 2"):
        write_conditions(conditions, tmp_path, replace(reading, info={**info, "axis": "coronal"}))


def test_bundles_are_known_by_their_configs(tmp_path: Path) -> None:
    assert draws_from_noise(BUNDLES / "dcgan_covid") and not draws_from_noise(BUNDLES / "pix2pix_covid")
    with pytest.raises(UserError, match="--bundle takes a bundle's folder"):
        config_of(tmp_path)
    with pytest.raises(UserError, match="give some with --condition"):
        generate(BUNDLES / "pix2pix_covid", 4, tmp_path)


def sets_without_names(folder: Path, split: Mapping[str, Any]) -> Sets:
    """Eight patients' images, and drawn ones, for a model that says how it was split but not of whom."""
    for name in ("real", "drawn"):
        (folder / name).mkdir()
        for number in range(8):
            gray = np.random.default_rng([number, len(name)]).integers(0, 255, (16, 16), np.uint8)
            Image.fromarray(gray).save(folder / name / f"patient{number}_1.png")
    write_json(folder / "model.json", {"image_size": 16, "window_hu": "lung", "split": split})
    folders = {"real": folder / "real", "synthetic": folder / "drawn", "output": folder / "x.html"}
    return gathering.gather(Options(**folders, bundle=BUNDLES / "dcgan_covid"), folder / "model.pt", folder)


def test_a_model_that_names_no_patients_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sets = sets_without_names(tmp_path, {"rule": "splits.json"})
    assert len(sets.real) == len(sets.heldout) == 4
    assert "the model names no patients of its training, so half" in caplog.text


def test_the_rule_of_a_models_split_tells_its_training_patients(tmp_path: Path) -> None:
    sets = sets_without_names(tmp_path, {"rule": RULE, "seed": 5, "fractions": [0.5, 0.25, 0.25]})
    samples = [Sample(Path(f"patient{n}_1.png"), None, f"patient{n}") for n in range(8)]
    expected = {sample.patient for sample in split_by_patient(samples, (0.5, 0.25, 0.25), 5)["train"]}
    assert set(sets.real.patients) == expected and len(sets.heldout) == 8 - len(expected)
