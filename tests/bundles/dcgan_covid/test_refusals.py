"""What this bundle refuses, in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.runs import Run, fingerprints, forked


def train(data: Path, folder: Path, **more: object) -> Run:
    return forked(CASE.training(data, folder / "run", **more), folder / "log")


def no_images(folder: Path) -> None:
    shutil.rmtree(folder / "covid")


def truncated(folder: Path) -> None:
    path = folder / "covid" / "covid-paper3-p1-1.png"
    path.write_bytes(path.read_bytes()[:100])


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (no_images, "no images found"),
    (truncated, "covid-paper3-p1-1.png"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_data_set_is_one_line(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    damage(folder)
    error = train(folder, tmp_path).error
    assert str(folder) in error and message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", "severe", "no class severe; there is covid"),
        ("network_def#start", "zero", "start 'zero' is unknown"),
        ("batch_size", 21, "20 training samples are fewer than one batch of 21"),
    ],
)
def test_a_bad_setting_is_one_line(data: Path, tmp_path: Path, key: str, value: object, message: str) -> None:
    assert message in train(data, tmp_path, **{key: value}).error
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_latent_size_says_both(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    error = train(data, tmp_path, resume=True, max_epochs=3, latent=6).error
    assert "cannot resume: latent was 8, is 6" in error
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
