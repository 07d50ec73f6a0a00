"""What this bundle refuses, in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.runs import Run, fingerprints, forked


def train(data: Path, folder: Path, **more: object) -> Run:
    return forked(CASE.training(data, folder / "run", **more), folder / "log")


def all_alike(folder: Path) -> None:
    first = sorted((folder / "covid").iterdir())[0].read_bytes()
    for path in (folder / "covid").iterdir():
        path.write_bytes(first)


def one_paper(folder: Path) -> None:
    for path in (folder / "covid").glob("covid-paper[1-9]*.png"):
        path.unlink()


def no_images(folder: Path) -> None:
    shutil.rmtree(folder / "covid")


def truncated(folder: Path) -> None:
    path = folder / "covid" / "covid-paper3-p1-1.png"
    path.write_bytes(path.read_bytes()[:100])


def one_gray(folder: Path) -> None:
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(folder / "covid" / "covid-paper3-p1-1.png")


def colourful(folder: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "covid" / "covid-paper3-p1-1.png")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (all_alike, "all 32 images are the same"),
    (one_paper, "cannot be split"),
    (no_images, "no images found"),
    (truncated, "covid-paper3-p1-1.png"),
    (one_gray, "covid-paper3-p1-1.png: every pixel has the same value"),
    (colourful, "covid-paper3-p1-1.png: the picture is in colour"),
    (shutil.rmtree, "no such folder"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_data_set_is_one_line(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    damage(folder)
    error = train(folder, tmp_path).error
    assert str(folder) in error and said in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("classes", "severe", "no class severe; there is covid"),
        ("fit", "squeeze", "fit 'squeeze' is unknown; choose one of pad, crop, stretch"),
        ("discriminator_augment", "colour", "augmentation 'colour' is unknown"),
        ("discriminator_def#norm", "batched", "norm 'batched' is unknown"),
        ("network_def#start", "zero", "start 'zero' is unknown"),
        ("patient_pattern", "(", "is no regular expression"),
        ("batch_size", 21, "20 training samples are fewer than one batch of 21"),
        ("n_critic", 0, "repeat is 0"),
    ],
)
def test_a_bad_setting_is_one_line(data: Path, tmp_path: Path, key: str, value: object, said: str) -> None:
    assert said in train(data, tmp_path, **{key: value}).error
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_latent_size_says_both(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    error = train(data, tmp_path, resume=True, max_epochs=3, latent=6).error
    assert "cannot resume" in error and "its latent size is 8, the network's 6" in error
    assert fingerprints(tmp_path / "run") == before


def test_a_model_of_another_latent_size_says_both(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    info = tmp_path / "run" / "models" / "model.json"
    info.write_text(info.read_text().replace('"latent": 8', '"latent": 6'))
    given = {"dataset_dir": data, "output_dir": tmp_path / "run"}
    error = forked(CASE.arguments("evaluating", "evaluate", **given), tmp_path / "log").error
    assert "does not fit the network (its latent size is 8, the network's 6)" in error
