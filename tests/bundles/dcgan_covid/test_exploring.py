"""``run explorer`` and ``run embedding`` as a user starts them, with an untrained generator."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles.dcgan_covid.projector import CONFIG
from common.files import read_json, write_json
from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.dcgan_covid.made_model import make_model
from tests.bundles.runs import Run, forked

Trained = tuple[Path, Run]


@pytest.fixture(scope="session")
def models(autoencoder: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with both models."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(autoencoder[0] / "models", folder / "models")
    make_model(folder / "models")
    return folder


def run(log: Path, run_id: str = "explorer", **settings: Any) -> Run:
    return forked(CASE.arguments(run_id, "explore", **settings), log / "log")


def description(page: Path) -> dict[str, Any]:
    """What the page's data say of themselves."""
    found = re.search(r'<script type="application/json" id="description">(.*?)</script>', page.read_text())
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_holds_both_kinds_and_the_plane(models: Path, halves: Path, tmp_path: Path) -> None:
    given = {"dataset_dir": halves, "output_dir": models, "output": tmp_path / "page.html"}
    done = run(tmp_path, **given, num_samples=5, plane_seeds="4,8,15")
    assert done.code == 0, done.err
    said = description(tmp_path / "page.html")
    assert said["classNames"] == ["real covid", "real noncovid", "generated"]
    assert np.bincount(said["classes"]).tolist() == [32, 32, 5]
    assert (said["dimensions"], said["imageSize"]) == (3, 16)
    assert (said["atlas"]["rows"], said["atlas"]["columns"]) == (24, 24)
    assert said["atlas"]["corners"][:3] == ["seed 4", "seed 8", "seed 15"]
    assert len(said["layers"]) == 5
    metrics = read_json(models / "models" / "autoencoder.json")["metrics"]
    assert f"on unseen images: {metrics['mse']:.3f}" in said["notes"]
    assert "32 real covid, 32 real noncovid, 5 generated" in done.out
    assert "64 real images are in it as thumbnails" in done.out


def test_no_real_image_is_shown_where_none_is_wanted(models: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = {"dataset_dir": tmp_path / "missing", "output_dir": models, "output": page, "atlas": 0}
    done = run(tmp_path, **given, num_real=0)
    assert done.code == 0, done.err
    said = description(page)
    assert said["classNames"] == ["generated"] and said["atlas"] is None
    assert len(said["names"]) == 200 and "real images are in it" not in done.out


def test_the_projector_gets_the_same_points(models: Path, halves: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(models, folder)
    given = {"dataset_dir": halves, "output_dir": folder, "num_samples": 6, "num_real": 10}
    done = run(tmp_path, "embedding", **given)
    assert done.code == 0, done.err
    projector = folder / "logs" / "projector"
    assert (projector / CONFIG).is_file()
    (labels,) = projector.rglob("metadata.tsv")
    kinds = [line.split("\t")[0] for line in labels.read_text().splitlines()[1:]]
    assert (kinds.count("generated"), len(kinds)) == (6, 16)
    (tensors,) = projector.rglob("tensors.tsv")
    points = np.loadtxt(tensors)
    assert points.shape == (16, 3) and points.std(axis=0).min() > 0


def test_what_is_refused(models: Path, halves: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given: dict[str, Any] = {"dataset_dir": halves, "output_dir": models, "output": page}
    bare = tmp_path / "bare"
    error = run(tmp_path, **{**given, "output_dir": bare}).error
    assert "autoencoder.pt: no trained model yet" in error and "train_autoencoder.yaml" in error
    error = run(tmp_path, **given, ckpt_path=bare / "model.pt").error
    assert "model.pt: no trained model yet" in error and "configs/train.yaml" in error
    assert "no such folder" in run(tmp_path, **{**given, "dataset_dir": bare}).error
    other = tmp_path / "other"
    shutil.copytree(models / "models", other)
    for name, was, now in (("autoencoder", 3, 2), ("model", 12, 9)):
        info = read_json(other / f"{name}.json")
        info["network"]["arguments"]["latent"] = now
        write_json(other / f"{name}.json", info)
        key = "ckpt_path" if name == "model" else name
        error = run(tmp_path, **given, **{key: other / f"{name}.pt"}).error
        assert f"its latent size is {was}, the network's {now}" in error
    assert not page.exists()
