"""A scaffolded bundle, in a copy of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.errors import UserError
from common.paths import repository_root
from common.tools.package import read_config, violations
from scripts.new_bundle import new_bundle
from tests.bundles.pix2pix_covid.case import make_pairs

ROOT = repository_root()
LEFT_OUT = shutil.ignore_patterns("__pycache__", "models", "run", "data", "synthetic", "tuning", "earlier")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A root with the one bundle that others begin with."""
    shutil.copytree(
        ROOT / "bundles" / "pix2pix_covid", tmp_path / "bundles" / "pix2pix_covid", ignore=LEFT_OUT
    )
    return tmp_path


def test_it_keeps_the_zoos_rules_and_names_only_itself(model: Path) -> None:
    files = new_bundle(model, "fifth")
    assert violations(model / "bundles" / "fifth") == []
    assert not any("pix2pix_covid" in path.read_text() for path in files if "tests" not in path.parts)
    texts = [path.read_text() for path in files if path.suffix in (".txt", ".json")]
    assert len(texts) == 2 and not any("weights" in text for text in texts)  # those are the model bundle's
    config = read_config(model / "bundles" / "fifth" / "configs" / "train.yaml")
    assert config["network_def"] == {"_target_": "bundles.fifth.networks.Generator", "width": 32}
    for name in ("evaluate", "inference"):
        otherwise = read_config(model / "bundles" / "fifth" / "configs" / f"{name}.yaml")["network_def"][
            "otherwise"
        ]
        assert otherwise == {"_target_": "bundles.fifth.networks.Generator"}


@pytest.mark.parametrize(
    ("name", "message"), [("Fifth", "small letters"), ("pix2pix_covid", "already there")]
)
def test_a_wrong_name_writes_nothing(model: Path, name: str, message: str) -> None:
    before = sorted(model.rglob("*"))
    with pytest.raises(UserError, match=message):
        new_bundle(model, name)
    assert sorted(model.rglob("*")) == before


@pytest.mark.slow
def test_it_trains_evaluates_and_is_packed(model: Path, tmp_path: Path) -> None:
    for folder in ("common", "scripts"):
        shutil.copytree(ROOT / folder, model / folder, ignore=LEFT_OUT if folder == "scripts" else None)
    for file in ("datasets.json", "synthetic_ct_bundles.py"):
        shutil.copy(ROOT / file, model)
    data = tmp_path / "data"
    data.mkdir()
    make_pairs(data)
    environment = {**os.environ, "PYTHONPATH": str(model)}

    def python(*words: object) -> str:
        line = [sys.executable, *map(str, words)]
        done = subprocess.run(line, cwd=model, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "bundles/fifth/networks.py" in python("scripts/new_bundle.py", "fifth")
    configs = model / "bundles" / "fifth" / "configs"
    given = ["--dataset_dir", data, "--image_size", 32, "--batch_size", 10, "--max_epochs", 1]
    given += [
        "--network_def#width",
        4,
        "--discriminator_def#channels",
        4,
        "--discriminator_def#num_layers_d",
        1,
    ]
    python("-m", "monai.bundle", "run", "training", "--config_file", configs / "train.yaml", *given)
    losses = (configs.parent / "run" / "logs" / "losses.csv").read_text().splitlines()
    assert len(losses) == 3  # a header and two iterations
    python(
        *("-m", "monai.bundle", "run", "evaluating", "--config_file", configs / "evaluate.yaml"),
        *("--dataset_dir", data),
    )
    assert (configs.parent / "run" / "eval" / "metrics.json").is_file()
    models = ["--models", configs.parent / "run" / "models"]
    python("scripts/build_bundle.py", "fifth", "--output", tmp_path / "dist", *models)
    with zipfile.ZipFile(tmp_path / "dist" / "fifth_v0.1.0.zip") as archive:
        assert "fifth/models/model.pt" in archive.namelist()
