"""Each recipe trains, and goes on after a stop as if there had been none; what is refused, in one line."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.files import read_json
from tests.bundles.dcgan_covid.case import CASE, make_images
from tests.bundles.runs import Run, fingerprints, forked

# Iterations of an epoch of 20 images in batches of 2, and what is logged beside all recipes' entries.
RECIPES = {
    "train": (10, {"D_penalty", "D_accuracy_pairs_ema"}),
    "dcgan": (3, {"D_penalty"}),
    "two_to_one": (5, set()),
    "wgan_gp": (2, {"D_penalty"}),
    "veegan": (10, {"G_latent"}),
    "stabilised": (3, {"D_penalty"}),
    "paper": (10, set()),
}
BASES = {"two_to_one": "paper", "stabilised": "paper", "wgan_gp": "dcgan", "veegan": "dcgan"}
"""Overlays that need another one before them."""


def train(recipe: str, data: Path, folder: Path, log: Path, **more: object) -> Run:
    widths = {"reconstructor_def#width": 4, "discriminator_def#joint": 8} if recipe == "veegan" else {}
    settings = CASE.settings(data, folder, **widths, **more)
    del settings["n_critic"]  # each recipe's own
    base = [BASES[recipe]] if recipe in BASES else []
    configs = ["train", *base, *([recipe] if recipe != "train" else [])]
    return forked(CASE.arguments("training", configs, **settings), log)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_trains(recipe: str, data: Path, tmp_path: Path) -> None:
    run = train(recipe, data, tmp_path / "run", tmp_path / "log", max_epochs=1)
    assert run.code == 0, run.err
    iterations, names = RECIPES[recipe]
    written = rows(tmp_path / "run")
    assert len(written) == iterations and names <= set(written[0])
    tells_none = "D_penalty" in names  # critics, and those that compare pairs, have no threshold
    assert ("D_accuracy_real" in written[0]) is ("D_accuracy_fake_ema" in written[0]) is not tells_none
    state = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in state.values())
    assert torch.load(tmp_path / "run" / "models" / "resume.pt", weights_only=True)["iteration"] == iterations


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_stopped_and_resumed_run_is_the_straight_one(recipe: str, data: Path, tmp_path: Path) -> None:
    for name, epochs in (("straight", [2]), ("stopped", [1, 2])):
        for number, last in enumerate(epochs):
            given = {"max_epochs": last, "val_interval": 1, "resume": number > 0}
            run = train(recipe, data, tmp_path / name, tmp_path / "log", **given)
            assert run.code == 0, run.err
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders."""
    folder = tmp_path_factory.mktemp("classes")
    make_images(folder, "covid", 5)
    make_images(folder, "noncovid", 5)
    return folder


def test_classes_are_a_condition_in_the_order_given(classes: Path, tmp_path: Path) -> None:
    run = train("conditional", classes, tmp_path / "run", tmp_path / "log", classes="noncovid,covid")
    assert run.code == 0, run.err
    info = read_json(tmp_path / "run" / "models" / "model.json")
    assert info["classes"] == ["noncovid", "covid"] and info["network"]["arguments"]["classes"] == 2


def test_without_a_condition_the_ill_are_learned_alone(classes: Path, tmp_path: Path) -> None:
    settings = CASE.settings(classes, tmp_path / "run")
    run = forked(CASE.arguments("training", "train", **settings), tmp_path / "log")
    assert run.code == 0, run.err
    info = read_json(tmp_path / "run" / "models" / "model.json")
    assert info["classes"] == ["covid"] and info["latent"] == 8
    assert sum(info["slices"].values()) == 20


def train_plain(data: Path, folder: Path, **more: object) -> Run:
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
    error = train_plain(folder, tmp_path).error
    assert str(folder) in error and message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classes", "severe", "no class severe; there is covid"),
        ("discriminator_def#patches", 5, "patches 5: no map of this side; choose of [16, 8], or 0 for none"),
        ("batch_size", 21, "20 training samples are fewer than one batch of 21"),
    ],
)
def test_a_bad_setting_is_one_line(data: Path, tmp_path: Path, key: str, value: object, message: str) -> None:
    assert message in train_plain(data, tmp_path, **{key: value}).error
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_latent_size_says_both(
    trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    error = train_plain(data, tmp_path, resume=True, max_epochs=3, latent=6).error
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
