"""The overlays that change what goes in or comes out: they train, are evaluated and used, end to end."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.labels import STRUCTURES
from common.data.layouts import find_volumes
from common.files import read_json
from tests.bundles.patchgan_cardiac.case import CASE
from tests.bundles.runs import forked

Model = tuple[Path, dict[str, Any]]
QUICK = {"val_interval": 1, "learning_rate": 0.01}
STRONG = {"perturb#elastic": 0.06, "perturb#growth": 0.04}  # a pixel or two of 32


def ran(folder: Path, run_id: str, configs: list[str], **settings: Any) -> str:
    """What a run printed, after a check that it ended well."""
    run = forked(CASE.arguments(run_id, configs, **settings), folder.with_name(run_id))
    assert run.code == 0, run.err
    return run.out


def train(data: Path, folder: Path, overlay: str, **more: Any) -> Model:
    settings = CASE.settings(data, folder, **QUICK, **more)
    ran(folder, "training", ["train", overlay], **settings)
    return folder, dict(read_json(folder / "models" / "model.json"))


def evaluate(folder: Path, data: Path) -> dict[str, Any]:
    ran(folder, "evaluating", ["evaluate"], **CASE.beside(data), dataset_dir=data, output_dir=folder)
    return dict(read_json(folder / "eval" / "metrics.json"))


# --- image and annotation together ---


@pytest.fixture(scope="module")
def annotating(data_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A run of one epoch with annotation.yaml."""
    return train(data_of(CASE), tmp_path_factory.mktemp("annotation") / "run", "annotation", **STRONG)


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
    return train(contrasts, tmp_path_factory.mktemp("contrast") / "run", "contrast")


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
    _, info = train(contrasts, tmp_path / "run", "contrast", condition_dir="images", image_dir="native")
    assert (info["condition_dir"], info["image_dir"]) == ("images", "native")
