"""``run evaluating`` as a user starts it, with an untrained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.files import read_json, write_json
from tests.bundles.dcgan_covid.made_model import CLASSES, make_model
from tests.bundles.runs import ROOT, Run, fingerprints, forked

CONFIG = ROOT / "bundles" / "dcgan_covid" / "configs" / "evaluate.yaml"
PARTS = {"train": 12, "val": 2, "test": 6}  # images of each class


def run(folder: Path, **settings: Any) -> Run:
    parts = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    return forked(["run", "evaluating", "--config_file", str(CONFIG), *parts], folder / "log")


def model_of(folder: Path, facts: dict[str, Any]) -> Path:
    """An unconditional model that says this of its training."""
    model = make_model(folder)
    about = model.with_suffix(".json")
    write_json(about, {**read_json(about), **facts})
    return model


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three folders of noise, the later the brighter; each image is a patient of its own."""
    folder = tmp_path_factory.mktemp("images")
    splits: dict[str, list[str]] = {part: [] for part in PARTS}
    for level, category in enumerate(CLASSES):
        (folder / category).mkdir()
        numbers = np.random.default_rng(level)
        for number in range(sum(PARTS.values())):
            pixels = numbers.integers(0, 100, (40, 30), dtype=np.uint8) + np.uint8(50 * level)
            Image.fromarray(pixels).save(folder / category / f"{category}{number:03d}.png")
            part = "train" if number < 12 else "val" if number < 14 else "test"
            splits[part].append(f"{category}{number:03d}")
    write_json(folder / "splits.json", splits)
    return folder


def test_files_and_metrics(images: Path, tmp_path: Path) -> None:
    model_of(tmp_path / "models", {"classes": ["mild", "severe"], "iteration": 7})
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "losses.csv").write_text("iteration,epoch,G_loss,D_loss\n1,1,3.0,1.0\n2,2,2.0,0.5\n")
    done = run(tmp_path, dataset_dir=images, output_dir=tmp_path, resamples=5)
    assert done.code == 0, done.err
    found = read_json(tmp_path / "eval" / "metrics.json")
    assert found["classes"] == ["mild", "severe"] and found["num_samples"] == 48 and found["iteration"] == 7
    assert found["metrics"]["recall"]["n"] == 24  # six of two classes, and their flips
    assert found["apart"] == {} and found["metrics"]["fid_gridvgg"]["n"] == 48
    names = {Path(path).name for path in fingerprints(tmp_path / "eval")}
    pictures = {"convergence.png", "epochs.png", "galleries.png", "nearest.png"}
    assert names == {*pictures, "metrics.json"}
    assert "test: 24 images, 48 generated" in done.out and "real-real" in done.out


def test_a_conditional_model_is_reported_by_class(images: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path, classes=3)
    settings = {"dataset_dir": images, "ckpt_path": model, "output_dir": tmp_path, "resamples": 3}
    done = run(tmp_path, **settings, num_samples=40, batch_size=7)
    assert done.code == 0, done.err
    sets = read_json(tmp_path / "eval" / "metrics.json")["apart"]
    assert list(sets) == CLASSES and {entry["metrics"]["recall"]["n"] for entry in sets.values()} == {12}
    assert sum(entry["metrics"]["precision"]["n"] for entry in sets.values()) == 40
    assert (tmp_path / "eval" / "classes.png").is_file()


def test_another_folder_is_compared_as_a_whole(images: Path, tmp_path: Path) -> None:
    """Its patients must be new, and there must be enough of them."""
    model = model_of(tmp_path, {"classes": ["mild"], "flips": False})
    settings: dict[str, Any] = {"dataset_dir": images, "ckpt_path": model, "output_dir": tmp_path}
    new = tmp_path / "new" / "mild"
    new.mkdir(parents=True)
    numbers = np.random.default_rng(9)
    for number in range(8):
        pixels = numbers.integers(0, 200, (30, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(new / f"new{number}.png")
    done = run(tmp_path, **settings, heldout_dir=new.parent, resamples=3)
    assert done.code == 0, done.err
    found = read_json(tmp_path / "eval" / "metrics.json")
    assert found["split"] == "heldout" and found["metrics"]["recall"]["n"] == 8 and found["num_samples"] == 12
    assert "is in the training split too" in run(tmp_path, **settings, heldout_dir=images).error


def test_refusals(images: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"dataset_dir": images, "output_dir": tmp_path}
    model = model_of(tmp_path / "models", {"classes": ["moderate"]})
    assert "no class moderate" in run(tmp_path, **settings, ckpt_path=model).error
