"""The command line of the search."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from common.errors import UserError
from common.files import read_json
from common.paths import repository_root
from common.rng import make_rng
from common.tools.tune import SearchSettings
from scripts.tune import parse

SCRIPT = repository_root() / "scripts" / "tune.py"
TINY = {
    "image_size": 32,
    "batch_size": 2,
    "max_epochs": 1,
    "network_def#levels": 5,
    "network_def#ngf": 4,
    "discriminator_def#channels": 4,
    "discriminator_def#num_layers_d": 1,
}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script from another folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_known_options_and_overrides_are_told_apart() -> None:
    words = "pix2pix_covid --trials 4 --dataset_dir ../data --cpu_minutes 2 --trial 5 --seed=3"
    overrides = {"dataset_dir": "../data", "trial": "5", "cpu_minutes": 2.0}
    assert parse(words.split()) == SearchSettings("pix2pix_covid", 4, 3, None, None, overrides)
    words = "pix2pix_covid --max_epochs 2 --output_dir out --config_file a.yaml b.yaml"
    files = [Path("a.yaml"), Path("b.yaml")]
    assert parse(words.split()) == SearchSettings(
        "pix2pix_covid", 12, 0, Path("out"), files, {"max_epochs": 2}
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "required: NAME; see --help"),
        ("pix2pix_covid --trials many", "invalid int value: 'many'; see --help"),
        ("pix2pix_covid --trials 0", "--trials 0: must be above 0"),
        ("pix2pix_covid --cpu_minutes -1", "--cpu_minutes: -1.0 is not a number above 0"),
        ("pix2pix_covid --seed -1", "--seed: -1 is not a whole number from 0 up"),
        ("pix2pix_covid dcgan", "'dcgan' belongs to no option"),
    ],
)
def test_wrong_arguments_are_one_line(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        parse(words.split())
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_real_trial_then_another(tmp_path: Path) -> None:
    make_pairs(tmp_path / "pairs")
    tiny = [part for key, value in TINY.items() for part in (f"--{key}", str(value))]
    words = ["pix2pix_covid", "--output_dir", "out", "--dataset_dir", "pairs", *tiny, "--trials"]
    first = run(tmp_path, *words, "1")
    assert first.returncode == 0, first.stderr
    assert first.stdout.split()[:5] == ["trial", "score", "learning_rate", "lambda_l1", "weight_decay"]
    assert first.stdout.splitlines()[2].split()[2:] == ["0.0002", "10.0", "0.0", "*", "best"]
    second = run(tmp_path, *words, "2")
    assert second.returncode == 0, second.stderr
    table = [line.split() for line in second.stdout.splitlines()]
    assert table[2][:5] == first.stdout.splitlines()[2].split()[:5]
    folders = sorted((tmp_path / "out").glob("trial_*"))
    records = [read_json(folder / "models" / "model.json") for folder in folders]
    assert [record["epoch"] for record in records] == [1, 1]
    assert records[0]["score"] != records[1]["score"]  # other settings reached the training
    tuned = yaml.safe_load((tmp_path / "out" / "tuned.yaml").read_text())
    assert str(tuned["learning_rate"]) == next(row for row in table if row[-1] == "best")[2]


def make_pairs(folder: Path) -> None:
    """``images/`` and ``masks/`` with one 8-bit slice of 32 x 32 for each of 8 patients."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for patient in range(8):
        image = make_rng(0, "tune", patient).integers(0, 200, (32, 32)).astype(np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[8 + patient : 16 + patient, 10:16] = 255
        Image.fromarray(image).save(folder / "images" / f"patient{patient}.png")
        Image.fromarray(mask).save(folder / "masks" / f"patient{patient}.png")
