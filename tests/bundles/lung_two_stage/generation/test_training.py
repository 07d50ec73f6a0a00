"""Each recipe of Table II trains, and goes on after a stop as if there had been none."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from common.files import read_json
from tests.bundles.lung_two_stage.generation.case import train

# Iterations of an epoch of 32 nodules (24 healthy slices) in batches of 4, and what else is logged.
RECIPES = {
    (): (8, {"D_penalty"}),
    ("train_healthy_slices",): (6, {"D_penalty"}),
    ("gan",): (8, set()),
    ("dcgan",): (8, set()),
    ("wgan",): (1, set()),
    ("capsule_gan",): (8, set()),
    ("biggan",): (8, set()),
    ("relativistic",): (8, {"D_penalty", "D_accuracy_pairs"}),
    ("train_healthy_slices", "relativistic"): (6, {"D_penalty", "D_accuracy_pairs"}),
}
NAMES = ["+".join(recipe) if recipe else "w_capsule_gan" for recipe in RECIPES]
QUICK = ((), ("relativistic",))  # of WGAN there is a quick test below


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs" / "losses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check(folder: Path, recipe: tuple[str, ...]) -> None:
    """What an epoch of a recipe leaves."""
    iterations, names = RECIPES[recipe]
    written = rows(folder)
    assert len(written) == iterations and names <= set(written[0])
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert all(bool(value.isfinite().all()) for value in state.values())
    info = read_json(folder / "models" / "model.json")
    nodules = "train_healthy_slices" not in recipe
    assert info["layer"] == ("nodules" if nodules else "healthy_slices")
    assert info["classes"] == (["part_solid", "solid"] if nodules else [])
    assert info["network"]["arguments"]["channels"] == 1 + nodules
    assert set(info["metrics"]) == {"fid_gridvgg", "alpha_fid_gridvgg"}
    assert not set(info["splits"]["train"]) & set(info["splits"]["test"] + info["splits"]["val"])


@pytest.mark.parametrize("recipe", QUICK, ids=["w_capsule_gan", "relativistic"])
def test_it_trains(recipe: tuple[str, ...], work: Path, tmp_path: Path) -> None:
    run = train(recipe, work, tmp_path / "run", tmp_path / "log")
    assert run.code == 0, run.err
    check(tmp_path / "run", recipe)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_a_stopped_and_resumed_run_is_the_straight_one(
    recipe: tuple[str, ...], work: Path, tmp_path: Path
) -> None:
    for name, epochs in (("straight", [2]), ("stopped", [1, 2])):
        for last in epochs:
            given = {"max_epochs": last, "resume": name == "stopped" and last == 2, "monitor_interval": 1}
            run = train(recipe, work, tmp_path / name, tmp_path / "log", **given)
            assert run.code == 0, run.err
            if last == 1:
                check(tmp_path / name, recipe)
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


def test_weights_of_wgans_critic_stay_clipped(work: Path, tmp_path: Path) -> None:
    run = train(["wgan"], work, tmp_path / "run", tmp_path / "log", n_critic=1, conditional=False)
    assert run.code == 0, run.err
    networks = torch.load(tmp_path / "run" / "models" / "resume.pt", weights_only=True)["networks"]
    weights = [value for name, value in networks["D"].items() if name.endswith(("weight", "bias"))]
    assert max(float(value.abs().max()) for value in weights) == pytest.approx(0.01)
    info = read_json(tmp_path / "run" / "models" / "model.json")
    assert info["network"]["arguments"]["classes"] == 0


def test_a_penalty_on_what_is_not_the_critics_gradient_is_refused(work: Path, tmp_path: Path) -> None:
    given = {"discriminator_def#gradients": "last"}
    error = train([], work, tmp_path / "run", tmp_path / "log", **given).error
    assert "discriminator_def#gradients last" in error and "set it to all" in error
    assert not (tmp_path / "run").exists()
