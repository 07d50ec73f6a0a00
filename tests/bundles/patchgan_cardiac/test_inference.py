"""``run inference`` as a user starts it, with an untrained model: what is written, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from bundles.patchgan_cardiac.networks import HeartGenerator
from common.files import read_json, write_json
from common.provenance import sha256_of
from tests.bundles.runs import ROOT, Run, forked
from tests.common.inference.hearts import AFFINES, heart, model_facts, save

CONFIG = ROOT / "bundles" / "patchgan_cardiac" / "configs" / "inference.yaml"
TARGET = "bundles.patchgan_cardiac.networks.HeartGenerator"
CTA = ROOT.parent / "shared" / "data" / "cardiac_cta"
FOREIGN = "{1: whole_heart, 2: Ao, 3: PA}"


def make_model(folder: Path, coarse: bool = True, size: int = 32, **more: Any) -> Path:
    """A generator with random weights and what training would write beside it."""
    facts = model_facts(size, coarse=coarse, **more)
    classes = facts["label_set"]["classes"]
    arguments = {"classes": len(classes), "encoding": "onehot", "levels": 5, "width": 8, "up": "resize"}
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    network = HeartGenerator(**arguments)
    network.last[1].weight.data *= 500  # untrained it would be gray all over
    torch.save(network.state_dict(), folder / "model.pt")
    write_json(
        folder / "model.json",
        {**facts, "classes": classes, "network": {"target": TARGET, "arguments": arguments}},
    )
    return folder / "model.pt"


def infer(folder: Path, **settings: Any) -> Run:
    given = {"output_dir": folder / "out", **settings}
    parts = [part for key, value in given.items() for part in (f"--{key}", str(value))]
    return forked(["run", "inference", "--config_file", str(CONFIG), *parts], folder / "log")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows the seven structures and ``whole_heart``."""
    return make_model(tmp_path_factory.mktemp("model"))


def test_one_label_file_becomes_one_volume(model: Path, tmp_path: Path) -> None:
    label = save(tmp_path / "labels" / "heart.nii.gz", heart(20, 18, 7), AFFINES["oblique"])
    run = infer(tmp_path, ckpt_path=model, label_file=label, smooth_slices=1.0)
    assert run.code == 0, run.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"flicker.json", "heart.json", "heart.nii.gz"}
    record = read_json(tmp_path / "out" / "heart.json")
    assert record["model_sha256"] == sha256_of(model) and record["condition"] == "heart.nii.gz"
    image = nib.load(tmp_path / "out" / "heart.nii.gz")
    assert image.shape == (20, 18, 7) and image.get_data_dtype() == np.int16
    np.testing.assert_allclose(image.affine, AFFINES["oblique"], atol=1e-6)
    hu = np.asanyarray(image.dataobj)
    assert -200 <= hu.min() < hu.max() <= 600
    kinds = read_json(tmp_path / "out" / "flicker.json")["volumes"]["heart.nii.gz"]
    assert kinds["smoothed"]["structures"]["across"] < 0.7 * kinds["generated"]["structures"]["across"]
    assert "heart.nii.gz: flicker in HU: generated" in run.out
    assert "1 images (-200..600 HU) for 1 label files" in run.out


def test_a_label_map_on_the_command_line(model: Path, tmp_path: Path) -> None:
    voxels = np.array([0, 1, 2, 0, 0, 0, 0, 3], np.uint8)[heart(20, 18, 3)]
    label = save(tmp_path / "labels" / "heart.nii.gz", voxels)
    run = infer(tmp_path, ckpt_path=model, label_file=label, label_map=FOREIGN)
    assert run.code == 0, run.err
    parts = read_json(tmp_path / "out" / "flicker.json")["volumes"]["heart.nii.gz"]["generated"]
    assert parts.keys() == {"structures", "background", "Ao", "PA", "whole_heart"}


def test_a_folder_gives_the_same_bytes_twice_and_whatever_the_batches(model: Path, tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii.gz"):
        save(tmp_path / "labels" / name, heart(20, 18, 5))
    digests = []
    for name, batch_size in (("first", 8), ("second", 8), ("third", 3)):
        folder = tmp_path / name
        run = infer(
            tmp_path, ckpt_path=model, input_dir=tmp_path / "labels", output_dir=folder, batch_size=batch_size
        )
        assert run.code == 0, run.err
        names = {"a.nii", "b.nii.gz", "flicker.json", "a.json", "b.json"}
        assert {path.name for path in folder.iterdir()} == names
        digests.append(hashlib.sha256((folder / "b.nii.gz").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    first, third = (np.asanyarray(nib.load(tmp_path / n / "a.nii").dataobj) for n in ("first", "third"))
    assert np.abs(first - third).max() <= 1  # a batch's size changes the last bits of a convolution


def test_a_data_set_gives_the_flicker_of_its_images_too(model: Path, tmp_path: Path) -> None:
    label = save(tmp_path / "data" / "p1_label.nii.gz", heart(20, 18, 5))
    random = np.random.default_rng(0)
    save(tmp_path / "data" / "p1.nii.gz", random.normal(100, 30, (20, 18, 5)).astype(np.int16))
    for given in (
        {"dataset_dir": label.parent},
        {"label_file": label, "ct_file": label.with_name("p1.nii.gz")},
    ):
        run = infer(tmp_path, ckpt_path=model, hu_offset=0, **given)
        assert run.code == 0, run.err
        kinds = read_json(tmp_path / "out" / "flicker.json")["volumes"]["p1_label.nii.gz"]
        assert kinds["real"]["structures"]["across"] > 5 and "; real " in run.out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("cut", "cannot be read"),
        ("time", "has 4 dimensions"),
        ("foreign", "label values 9 are no known structures and no map is given; give --label_map"),
        ("place", "holds the labels themselves; choose another --output_dir"),
        ("map", "'Aorta' is unknown"),
        ("none", "no such file"),
        ("width", "smooth_slices"),
        ("two", "--label_file and --input_dir"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    model: Path, tmp_path: Path, damage: str, said: str
) -> None:
    label = save(tmp_path / "labels" / "heart.nii.gz", heart(20, 18, 3))
    settings: dict[str, Any] = {"label_file": label, "ckpt_path": model}
    if damage == "cut":
        label.write_bytes(label.read_bytes()[:-20])
    if damage == "time":
        save(label, np.zeros((4, 4, 4, 2), np.uint8))
    if damage == "foreign":
        save(label, heart(20, 18, 3) + np.uint8(2))
    settings |= {
        "place": {"output_dir": label.parent},
        "map": {"label_map": "{1: Aorta}"},
        "none": {"label_file": tmp_path / "nowhere.nii.gz"},
        "width": {"smooth_slices": -1},
        "two": {"input_dir": label.parent},
    }.get(damage, {})
    assert said in infer(tmp_path, **settings).error
    assert not (tmp_path / "out").exists()
    assert [path.name for path in label.parent.iterdir()] == ["heart.nii.gz"]


def test_whole_heart_for_a_model_without_it_says_what_to_do(tmp_path: Path) -> None:
    label = save(tmp_path / "labels" / "heart.nii.gz", heart(20, 18, 3))
    model = make_model(tmp_path / "model", coarse=False)
    error = infer(
        tmp_path, ckpt_path=model, label_file=label, label_map="{1: whole_heart, 2: Ao, 7: PA}"
    ).error
    assert "heart.nii.gz: value 1 means whole_heart" in error and "coarse" in error


def test_without_a_model_it_says_train_first(tmp_path: Path) -> None:
    label = save(tmp_path / "labels" / "heart.nii.gz", heart(20, 18, 3))
    error = infer(tmp_path, ckpt_path=tmp_path / "model.pt", label_file=label).error
    assert "no trained model yet; train first" in error


@pytest.mark.slow
def test_nothing_given_makes_phantoms(model: Path, tmp_path: Path) -> None:
    run = infer(tmp_path, ckpt_path=model, bundle_root=tmp_path / "bundle", batch_size=64)
    assert run.code == 0, run.err
    assert len(list((tmp_path / "out").glob("phantom_*.nii.gz"))) == 16


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.skipif(not CTA.is_dir(), reason=f"{CTA} is not there")
def test_a_real_label_file_with_foreign_values(tmp_path: Path) -> None:
    """Chest CT angiography, labels 1 heart, 2 aorta, 3 pulmonary artery; voxel axes run as in LPS."""
    model, label = make_model(tmp_path / "model", size=64), CTA / "label.nii.gz"
    run = infer(
        tmp_path,
        **{"ckpt_path": model, "label_file": label, "ct_file": CTA / "ct.nii.gz", "label_map": FOREIGN},
        smooth_slices=1.0,
    )
    assert run.code == 0, run.err
    source, image = nib.load(label), nib.load(tmp_path / "out" / "label.nii.gz")
    assert image.shape == source.shape == (120, 126, 164)
    assert (image.affine == source.affine).all() and nib.aff2axcodes(image.affine) == ("L", "P", "S")
    hu = np.asanyarray(image.dataobj)
    assert hu.dtype == np.int16 and hu.min() >= -200 and hu.max() <= 600
    kinds = read_json(tmp_path / "out" / "flicker.json")["volumes"]["label.nii.gz"]
    across = {kind: parts["structures"]["across"] for kind, parts in kinds.items()}
    assert across["smoothed"] < across["generated"] and 0 < across["real"] < 100
