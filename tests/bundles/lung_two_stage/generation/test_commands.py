"""The commands as a user starts them: sampling, generation, classifier, and each recipe of Table II."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.generation.select import GeneratorModel
from common.files import read_json
from common.provenance import sha256_of
from common.tools.export import ExportSettings, export
from tests.bundles.lung_two_stage.generation.made import CASE, LATENT, SIZE, made_nodules, make_model, train
from tests.bundles.runs import Run, forked


def run(kind: str, config: str, log: Path, **settings: Any) -> Run:
    return forked(CASE.arguments(kind, config, **settings), log)


def test_sampling_writes_crops_with_their_alpha(tmp_path: Path) -> None:
    model, folder = make_model(tmp_path / "model"), tmp_path / "nifti"
    overrides = {"ckpt_path": model, "num_samples": 3, "seed": 2, "file_type": "nifti", "output_dir": folder}
    done = run("inference", "inference", tmp_path / "log", **overrides)
    assert done.code == 0, done.err
    files = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    names = [f"{('part_solid', 'solid')[k % 2]}/seed2_sample00000{k}.nii.gz" for k in range(3)]
    record = "samples/seed2_samples000000-000002.json"
    assert files == {"grid.png", record, *(f"{part}/{n}" for part in ("samples", "alpha") for n in names)}
    assert read_json(folder / record)["model_sha256"] == sha256_of(model)
    crop, alpha = (nib.load(folder / part / names[0]) for part in ("samples", "alpha"))
    assert crop.header["descrip"].item() == b"synthetic, lung_two_stage 0.1.0"
    assert crop.header.get_zooms()[:2] == (2.5, 2.5) and crop.shape == (SIZE, SIZE, 1)
    drawn = GeneratorModel.load(model, "").draw(3, 2).images[0]  # (2, S, S) in [-1, 1]
    for volume, lower, width, channel in ((crop, -1000, 1400, 0), (alpha, 0, 255, 1)):
        expected = (drawn[channel] + 1) / 2 * width + lower
        assert np.abs(np.asarray(volume.dataobj)[..., 0].T - expected).max() < 1


@pytest.mark.slow
def test_both_layers_are_generated(work: Path, tmp_path: Path) -> None:
    settings = {
        "nodules_model": make_model(tmp_path / "a"),
        "healthy_slices_model": make_model(tmp_path / "b", "healthy_slices", 0, spacing_mm=5.0),
        "output_dir": tmp_path / "out",
        "work_dir": work,
        **{
            "real_nodules": 5,
            "generated_nodules": 4,
            "real_healthy_slices": 6,
            "generated_healthy_slices": 3,
        },
    }
    done = run("generation", "generate", tmp_path / "log", **settings)
    assert done.code == 0, done.err
    nodules, healthy_slices = (
        NoduleBank.load(tmp_path / "out/nodules"),
        SliceBank.load(tmp_path / "out/healthy_slices"),
    )
    assert sum(r.origin == "real" for r in nodules.records) == 5
    assert sum(r.origin == "real" for r in healthy_slices.records) == 6
    assert read_json(tmp_path / "out/nodules/generation.json")["counts"]["drawn"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("categories", [True, False])
def test_a_classifier_is_trained_goes_on_and_judges(categories: bool, tmp_path: Path) -> None:
    bank = made_nodules(categories, each=8).save(tmp_path / "extraction" / "nodules")
    tiny = {"image_size": SIZE, "network_def#widths": "[4,8]", "batch_size": 16, "val_interval": 1}
    for epochs, resume in ((2, False), (16, True)):
        done = run(
            "training",
            "train_classifier",
            tmp_path / "log",
            work_dir=tmp_path,
            **tiny,
            max_epochs=epochs,
            resume=resume,
            learning_rate=0.01,
        )
        assert done.code == 0, done.err
    info = read_json(tmp_path / "classifier" / "models" / "model.json")
    assert info["classes_by"] == ("category" if categories else "diameter")
    assert info["metrics"]["accuracy"] > (0.7 if categories else 0.4)
    settings = {"models": str({"A": str(make_model(tmp_path / "m", classes=2 * categories))}), "resamples": 5}
    done = run(
        "evaluating", "evaluate_generation", tmp_path / "log2", work_dir=tmp_path, bank_dir=bank, **settings
    )
    assert done.code == 0, done.err
    result = read_json(tmp_path / "nodules" / "eval" / "metrics.json")
    name = "is_nodule_category" if categories else "is_nodule_diameter"
    assert result["classifiers"] == [name] and set(result["methods"]) == {
        *("A", "real real", "mean image", "blurred real")
    }
    assert result["methods"]["real real"][name][0]["mean"] > 1.05


@pytest.mark.slow
def test_a_generator_of_categories_is_exported_with_its_class_as_input(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = make_model(tmp_path / "model")
    path = export(ExportSettings("lung_two_stage", "onnx", model))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["image", "class"]
    noise, classes = torch.randn(5, LATENT), torch.tensor([0, 0, 1, 1, 0])
    network = GeneratorModel.load(model, "").network
    with torch.inference_mode():
        plain = network(noise, classes)
        assert not torch.allclose(plain, network(noise, 1 - classes), atol=0.01)
    [drawn] = session.run(["pred"], {"image": noise.numpy(), "class": classes.numpy()})
    np.testing.assert_allclose(drawn, plain.numpy(), atol=1e-5)
    script = torch.jit.load(export(ExportSettings("lung_two_stage", "torchscript", model)))
    torch.testing.assert_close(script(noise, classes), plain)


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
    ("train_healthy_slices", "skip_excitation"): (6, {"D_penalty", "D_accuracy_pairs"}),
}
NAMES = ["+".join(recipe) if recipe else "w_capsule_gan" for recipe in RECIPES]


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
    assert info["network"]["arguments"].get("channels", 1) == 1 + nodules
    assert set(info["metrics"]) == {"fid_gridvgg", "alpha_fid_gridvgg"}
    assert not set(info["splits"]["train"]) & set(info["splits"]["test"] + info["splits"]["val"])


def test_it_trains(work: Path, tmp_path: Path) -> None:
    """W-CapsuleGAN; of WGAN there is a quick test below."""
    run = train((), work, tmp_path / "run", tmp_path / "log")
    assert run.code == 0, run.err
    check(tmp_path / "run", ())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_a_stopped_and_resumed_run_is_the_straight_one(
    recipe: tuple[str, ...], work: Path, tmp_path: Path
) -> None:
    for name, epochs in (("straight", [2]), ("stopped", [1, 2])):
        for last in epochs:
            overrides = {"max_epochs": last, "resume": name == "stopped" and last == 2, "monitor_interval": 1}
            run = train(recipe, work, tmp_path / name, tmp_path / "log", **overrides)
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


def test_a_penalty_on_what_is_not_the_critics_gradient_is_refused(work: Path) -> None:
    parser = ConfigParser()
    parser.read_config(str(CASE.configs / "train_nodules.yaml"))
    parser.update({"work_dir": str(work), "discriminator_def::gradients": "last"})
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("training#2")  # after the checks of the config and of the folder
    error = str(caught.value.__cause__)
    assert "discriminator_def#gradients last" in error and "set it to all" in error
