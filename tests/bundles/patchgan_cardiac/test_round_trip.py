"""Evaluating takes up what training left behind, with and without overlays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.labels import STRUCTURES, WHOLE_HEART
from common.files import read_json
from tests.bundles.patchgan_cardiac.case import CASE
from tests.bundles.runs import Run, forked

Trained = tuple[Path, Run]
GENERATOR = "bundles.patchgan_cardiac.networks.HeartGenerator"
SPADE = "common.networks.generators.SpadeGenerator"
SHORT = {"iterations": "null", "image_iterations": "[0,10]"}


def evaluate(folder: Path, data: Path, **more: Any) -> dict[str, Any]:
    settings = {**CASE.beside(data), "dataset_dir": data, "output_dir": folder, **more}
    run = forked(CASE.arguments("evaluating", "evaluate", **settings), folder.with_name("evaluating"))
    assert run.code == 0, run.err
    result: dict[str, Any] = read_json(folder / "eval" / "metrics.json")
    for name in [*result["metrics"], *result["structures"]]:
        assert name in run.out
    return result


def train(data: Path, folder: Path, overlays: list[str], **more: Any) -> dict[str, Any]:
    """What stands beside the model that a tiny training with overlays leaves."""
    settings = CASE.settings(data, folder, **{"val_interval": 1, **more})
    run = forked(CASE.arguments("training", ["train", *overlays], **settings), folder.with_name("training"))
    assert run.code == 0, run.err
    return dict(read_json(folder / "models" / "model.json"))


def test_the_model_knows_how_it_was_made(trained: Trained) -> None:
    info = read_json(trained[0] / "models" / "model.json")
    assert info["classes"] == [*STRUCTURES, WHOLE_HEART]
    assert info["intensity"] == {"kind": "window", "lower": -200, "upper": 600}
    assert info["window_hu"] == [-200, 600] and info["nominal_hu"] is False
    assert (info["image_size"], info["axis"], info["spacing"]) == (32, "axial", None)
    assert info["slices"] == {"train": 20, "val": 8, "test": 4}
    assert set(info["metrics"]) == {"fid_gridvgg", "structure_faithfulness"}
    network = info["network"]["arguments"]
    assert (network["classes"], network["encoding"], network["levels"], network["width"]) == (
        8,
        "onehot",
        5,
        8,
    )


def test_evaluating_writes_metrics_by_structure_with_baselines(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    result = evaluate(folder, data)
    assert set(result["metrics"]) >= {"fid_gridvgg", "structure_faithfulness", "ssim", "psnr", "mae", "mse"}
    assert set(result["structures"]) >= set(STRUCTURES)
    for name, metric in result["metrics"].items():
        assert len(metric["baselines"]) == 4, name
    assert result["metrics"]["mae"]["n"] == 4
    for name in ("panel.png", "panel_structures.png", "convergence.png"):
        with Image.open(folder / "eval" / name) as picture:
            assert min(picture.size) > 100


def test_other_patients_are_evaluated_as_a_whole(trained: Trained, data: Path, tmp_path: Path) -> None:
    folder, others = tmp_path / "run", tmp_path / "others"
    shutil.copytree(trained[0], folder)
    for part in ("images", "labels"):
        (others / part).mkdir(parents=True)
        for number in (0, 1):
            source = data / part / f"patient_{number:03d}.nii.gz"
            shutil.copy(source, others / part / f"other_{number:03d}.nii.gz")
    result = evaluate(folder, data, heldout_dir=others)
    assert result["split"] == "heldout" and result["metrics"]["mae"]["n"] == 8


@pytest.mark.parametrize(
    ("overlays", "more", "target", "arguments"),
    [
        (["paper"], SHORT, GENERATOR, {"encoding": "index", "up": "transposed", "skips": True, "noise": 0}),
        (["paper", "published_code"], SHORT, GENERATOR, {"up": "transposed_conv", "skips": False}),
        (["spade"], {"network_def#channels": "[4,8]"}, SPADE, {"encoding": "onehot", "image_size": 32}),
    ],
    ids=["paper", "published_code", "spade"],
)
def test_every_recipe_trains_and_is_evaluated_without_its_overlay(
    data: Path,
    tmp_path: Path,
    overlays: list[str],
    more: dict[str, Any],
    target: str,
    arguments: dict[str, Any],
) -> None:
    given = dict(more)
    if target == SPADE:  # it has other settings than the network that it replaces
        given |= {"network_def#levels": None, "network_def#width": None}
    info = train(data, tmp_path / "run", overlays, **given)
    assert info["network"]["target"] == target
    assert arguments.items() <= info["network"]["arguments"].items()
    assert evaluate(tmp_path / "run", data)["iteration"] == 10


def make_mr(data: Path, folder: Path) -> None:
    """The same hearts as ACDC has them: labels beside, 1 RV, 2 Myo, 3 LV, without units."""
    folder.mkdir()
    table = np.zeros(8, np.uint8)
    table[[STRUCTURES.index(name) + 1 for name in ("RV", "Myo", "LV")]] = (1, 2, 3)
    for number, path in enumerate(sorted((data / "images").iterdir()), start=1):
        image, label = (nib.load(data / part / path.name) for part in ("images", "labels"))
        name = f"patient{number:03d}_frame01"
        values = (image.get_fdata() + 300).astype(np.int16)
        nib.save(nib.Nifti1Image(values, image.affine), folder / f"{name}.nii.gz")
        nib.save(
            nib.Nifti1Image(table[np.asarray(label.dataobj)], label.affine), folder / f"{name}_label.nii.gz"
        )


def test_mr_trains_without_units_and_is_evaluated_without_its_overlay(data: Path, tmp_path: Path) -> None:
    volumes = tmp_path / "mr"
    make_mr(data, volumes)
    info = train(volumes, tmp_path / "run", ["mr"], spacing=6.0)
    assert info["classes"] == ["LV", "RV", "Myo"] and info["is_hu"] is False and "window_hu" not in info
    assert info["intensity"] == {"kind": "percentile", "lower": 1, "upper": 99}
    assert info["label_set"]["label_map"] == {"1": "RV", "2": "Myo", "3": "LV"}
    assert info["network"]["arguments"]["classes"] == 3
    assert set(evaluate(tmp_path / "run", volumes)["structures"]) == {"LV", "RV", "Myo"}


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("whole_heart", ["whole_heart"]),
        ("Myo", ["Myo"]),
        ("LV,205", ["LV", "Myo"]),
        ("[LV,Ao]", ["LV", "Ao"]),
    ],
)
def test_one_structure_or_several_are_chosen_by_name_or_value(
    data: Path, tmp_path: Path, labels: str, classes: list[str]
) -> None:
    info = train(data, tmp_path / "run", [], labels=labels)
    assert info["classes"] == classes
    assert info["network"]["arguments"]["classes"] == len(classes)


def test_so_many_iterations_are_rounded_up_to_whole_epochs(data: Path, tmp_path: Path) -> None:
    info = train(data, tmp_path / "run", [], iterations=11, max_epochs=9)
    assert info["epoch"] <= 2
    rows = (tmp_path / "run" / "logs" / "losses.csv").read_text().splitlines()
    assert len(rows) == 1 + 20
