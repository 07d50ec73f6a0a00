"""Evaluation and inference take up what training left behind, with and without overlays."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.labels import STRUCTURES, WHOLE_HEART
from common.data.layouts import find_volumes
from common.files import read_json
from tests.bundles.patchgan_cardiac.case import CASE, arguments
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
    for name in [*result["metrics"], *result.get("structures", [])]:
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


SMALL = {
    "image_size": 64,
    "network_def#levels": 6,
    "network_def#width": 8,
    "discriminator_def#width": 8,
    "max_epochs": 1,
    "val_interval": 1,
}


def trained_and_evaluated(data: Path, folder: Path, configs: list[str], **more: Any) -> dict[str, Any]:
    """What stands beside the model, with the evaluation's result as ``result``."""
    where = {"dataset_dir": data, "store_dir": folder / "slices", "output_dir": folder / "run"}
    trained = forked(arguments("training", configs, **SMALL, **where, **more), folder / "training")
    assert trained.code == 0, trained.err
    evaluated = forked(arguments("evaluating", "evaluate", **where), folder / "evaluating")
    assert evaluated.code == 0, evaluated.err
    info = read_json(folder / "run" / "models" / "model.json")
    return {**info, "result": read_json(folder / "run" / "eval" / "metrics.json")}


@pytest.mark.slow
@pytest.mark.realdata
def test_mr_volumes_of_acdc(shared_data: Path, tmp_path: Path) -> None:
    info = trained_and_evaluated(shared_data / "acdc", tmp_path, ["train", "mr"])
    assert info["classes"] == ["LV", "RV", "Myo"] and info["is_hu"] is False
    patients = [set(part) for part in info["splits"].values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 16
    assert set(info["result"]["structures"]) == {"LV", "RV", "Myo"}


@pytest.mark.slow
@pytest.mark.realdata
def test_ct_slices_with_seven_structures(shared_data: Path, tmp_path: Path) -> None:
    info = trained_and_evaluated(shared_data / "cardiac_chd", tmp_path, ["train"], batch_size=2)
    assert set(info["classes"]) > set(STRUCTURES) and info["nominal_hu"] is True
    assert sum(map(len, info["splits"].values())) == 5 and sum(info["slices"].values()) == 24


Model = tuple[Path, dict[str, Any]]
STRONG = {"perturb#elastic": 0.06, "perturb#growth": 0.04}  # a pixel or two of 32


def ran(folder: Path, run_id: str, configs: list[str], **settings: Any) -> str:
    """What a run printed, after a check that it ended well."""
    run = forked(CASE.arguments(run_id, configs, **settings), folder.with_name(run_id))
    assert run.code == 0, run.err
    return run.out


def model_of(data: Path, folder: Path, overlay: str, **more: Any) -> Model:
    return folder, train(data, folder, [overlay], learning_rate=0.01, **more)


# --- image and annotation together ---


@pytest.fixture(scope="module")
def annotating(data_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A run of one epoch with annotation.yaml."""
    return model_of(data_of(CASE), tmp_path_factory.mktemp("annotation") / "run", "annotation", **STRONG)


def test_annotation_trains_on_perturbed_labels(annotating: Model) -> None:
    folder, info = annotating
    classes = len(info["classes"])
    assert info["network"]["arguments"]["out_channels"] == 2 + classes
    assert info["perturb"]["mix"] == 0.3
    assert {"fid_gridvgg", "structure_faithfulness", "annotation_dice", "condition_dice"} == set(
        info["metrics"]
    )
    assert 0.5 < info["metrics"]["condition_dice"] < 1
    with (folder / "logs" / "losses.csv").open(newline="") as file:
        losses = [float(row["G_annotation"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_annotation_is_evaluated_without_its_overlay(annotating: Model, data: Path, tmp_path: Path) -> None:
    shutil.copytree(annotating[0], tmp_path / "run")
    result = evaluate(tmp_path / "run", data)
    assert result["metrics"]["mae"]["n"] == 4 and set(result["structures"]) >= set(STRUCTURES)


def test_new_pairs_come_out_and_are_a_data_set(annotating: Model, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    settings = {"ckpt_path": annotating[0] / "models" / "model.pt", "output_dir": out, "variants": 2}
    said = ran(tmp_path / "run", "inference", ["inference", "generate_pairs"], dataset_dir=data, **settings)
    assert "16 pairs of image (-200..600 HU)" in said
    records = find_volumes(out)
    assert len(records) == 16 and len({record.patient for record in records}) == 8
    for record in records[:3]:
        source = nib.load(data / "labels" / f"{record.patient}.nii.gz")
        image, label = nib.load(record.image), nib.load(record.mask)
        for pair in (image, label):
            assert pair.shape == source.shape and np.array_equal(pair.affine, source.affine)
        assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint16
        assert set(np.unique(label.dataobj)) <= set(range(9))
        assert np.ptp(np.asarray(image.dataobj)) > 0
    assert len(read_json(out / "pairs.json")["pairs"]) == 16


def test_a_model_of_images_alone_makes_pairs_too(trained: Any, data: Path, tmp_path: Path) -> None:
    model = trained[0] / "models" / "model.pt"
    settings = {"ckpt_path": model, "output_dir": tmp_path / "pairs", "variants": 1, **STRONG}
    label = data / "labels" / "patient_000.nii.gz"
    ran(tmp_path / "run", "inference", ["inference", "generate_pairs"], label_file=label, **settings)
    found = np.asarray(nib.load(tmp_path / "pairs" / "labels" / "patient_000_variant01.nii.gz").dataobj)
    given = np.asarray(nib.load(label).dataobj)
    assert set(np.unique(found)) == set(range(8)) and 0.8 < np.mean(found == given) < 1


# --- CT to another contrast ---


@pytest.fixture(scope="module")
def contrasts(data_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made hearts with native scans beside: all blood and muscle alike."""
    folder = tmp_path_factory.mktemp("contrasts") / "data"
    shutil.copytree(data_of(CASE), folder)
    (folder / "native").mkdir()
    for path in sorted((folder / "images").iterdir()):
        image = nib.load(path)
        native = np.minimum(np.asarray(image.dataobj), 45).astype(np.int16)
        nib.save(nib.Nifti1Image(native, image.affine), folder / "native" / path.name)
    return folder


@pytest.fixture(scope="module")
def contrasting(contrasts: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A run of one epoch with contrast.yaml."""
    return model_of(contrasts, tmp_path_factory.mktemp("contrast") / "run", "contrast")


def test_contrast_trains_on_images(contrasting: Model) -> None:
    info = contrasting[1]
    assert (info["condition"], info["condition_dir"], info["image_dir"]) == ("image", "native", "images")
    assert info["classes"] == [] and info["network"]["arguments"]["encoding"] == "image"
    assert {"fid_gridvgg", "ssim", "condition_ssim"} == set(info["metrics"])


def test_contrast_is_evaluated_beside_the_condition_as_it_is(
    contrasting: Model, contrasts: Path, tmp_path: Path
) -> None:
    shutil.copytree(contrasting[0], tmp_path / "run")
    result = evaluate(tmp_path / "run", contrasts)
    assert result["leading"] == ["fid_gridvgg"] and "structures" not in result
    assert not any("faithfulness" in name for name in result["metrics"])
    beside = result["metrics"]["mse"]["baselines"]
    assert set(beside) == {"condition", "mean_image", "nearest_mask", "real_real", "blurred_real"}
    assert beside["condition"]["mean"] < beside["real_real"]["mean"]


def test_a_native_volume_becomes_an_enhanced_one(contrasting: Model, contrasts: Path, tmp_path: Path) -> None:
    settings = {"ckpt_path": contrasting[0] / "models" / "model.pt", "output_dir": tmp_path / "out"}
    native = contrasts / "native" / "patient_003.nii.gz"
    ran(tmp_path / "run", "inference", ["inference"], label_file=native, **settings)
    source, image = nib.load(native), nib.load(tmp_path / "out" / "patient_003.nii.gz")
    assert image.shape == source.shape and np.array_equal(image.affine, source.affine)
    assert image.get_data_dtype() == np.int16
    hu = np.asarray(image.dataobj)
    assert hu.min() >= -200 and hu.max() <= 600 and np.ptp(hu) > 0


def test_a_data_set_of_two_contrasts_is_drawn_from_its_condition(
    contrasting: Model, contrasts: Path, tmp_path: Path
) -> None:
    settings = {"ckpt_path": contrasting[0] / "models" / "model.pt", "output_dir": tmp_path / "out"}
    ran(tmp_path / "run", "inference", ["inference"], dataset_dir=contrasts, **settings)
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 8
    assert "real" in next(iter(read_json(tmp_path / "out" / "flicker.json")["volumes"].values()))


def test_the_reverse_is_two_settings(contrasts: Path, tmp_path: Path) -> None:
    _, info = model_of(contrasts, tmp_path / "run", "contrast", condition_dir="images", image_dir="native")
    assert (info["condition_dir"], info["image_dir"]) == ("images", "native")
