"""``run inference``, ``interpolation`` and ``evaluating`` as a user starts them, with an untrained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.files import read_json, write_json
from common.inference.sampling import draw_images, latents
from common.provenance import sha256_of
from common.visualization import grey_levels
from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.dcgan_covid.made import CLASSES, LATENT, make_generator, make_model
from tests.bundles.runs import ROOT, Run, fingerprints, forked

COVID = ROOT.parent / "shared" / "data" / "covid_ct" / "covid"
QUICK = {"projection#drawn": 8, "projection#starts": 2, "projection#iterations": 5}


def run(run_id: str, folder: Path, **settings: Any) -> Run:
    """A run of inference.yaml, or of evaluate.yaml."""
    config = "evaluate" if run_id == "evaluating" else "inference"
    return forked(
        CASE.arguments(run_id, config, **{"output_dir": folder / "out", **settings}), folder / "log"
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unconditional model."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three classes."""
    return make_model(tmp_path_factory.mktemp("conditional"), classes=3)


def test_a_job_in_parts_gives_the_same_files(model: Path, tmp_path: Path) -> None:
    parts = {"whole": [(0, 40)], "parts": [(0, 33), (33, 7)]}
    found = {}
    for name, ranges in parts.items():
        folder = tmp_path / name
        for first, count in ranges:
            done = run(
                "inference",
                tmp_path,
                **{"ckpt_path": model, "output_dir": folder, "seed": 3},
                num_samples=count,
                first_sample=first,
            )
            assert done.code == 0, done.err
            assert f"{count} samples in {folder / 'samples'}" in done.out
        found[name] = {
            Path(path).name: digest
            for path, digest in fingerprints(folder / "samples").items()
            if not path.endswith(".json")  # one a run
        }
    assert len(found["whole"]) == 40 == len(set(found["whole"].values()))
    assert found["whole"] == found["parts"]
    image = draw_images(make_generator()[0], latents(3, [39], LATENT))
    pixels = np.asarray(Image.open(tmp_path / "whole" / "samples" / "seed3_sample000039.png"))
    assert np.abs(pixels.astype(int) - grey_levels(image)[0]).max() <= 1


def test_a_conditional_model_draws_the_classes_asked_for(conditional: Path, tmp_path: Path) -> None:
    settings = {"ckpt_path": conditional, "num_samples": 4, "classes": "severe,mild", "file_type": "nifti"}
    done = run("inference", tmp_path, **settings)
    assert done.code == 0, done.err
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    expected = {f"{name}/seed0_sample00000{k}.nii.gz" for k, name in enumerate(["severe", "mild"] * 2)}
    record = Path("samples") / "seed0_samples000000-000003.json"
    assert files == {Path("grid.png"), record, *(Path("samples") / name for name in expected)}
    found = read_json(tmp_path / "out" / record)
    assert (found["bundle"], found["model_sha256"]) == ("dcgan_covid", sha256_of(conditional))


def test_interpolation_between_seeds_and_through_classes(conditional: Path, tmp_path: Path) -> None:
    done = run("interpolation", tmp_path, ckpt_path=conditional, from_seed=1, to_class="severe", steps=4)
    assert done.code == 0, done.err
    assert "4 images from seed 1 sample 0 to class severe, linear" in done.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"interpolation.{suffix}" for suffix in ("png", "gif", "json")
    }


def test_interpolation_between_images(model: Path, tmp_path: Path) -> None:
    for number, size in enumerate([(50, 40), (20, 20)]):
        pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    ends = {"from_image": tmp_path / "0.png", "to_image": tmp_path / "1.png", "path": "spherical"}
    done = run("interpolation", tmp_path, ckpt_path=model, **ends, **QUICK)
    assert done.code == 0, done.err
    assert done.out.count(".png: reconstructed with SSIM") == 2


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("inference", {"num_samples": 0}, "'num_samples': 0 is not a whole number from 1 up"),
        ("inference", {"seed": -1}, "'seed'"),
        ("inference", {"num_sample": 3}, "did you mean 'num_samples'?"),
        ("interpolation", {}, "a walk needs a start: give --from_seed or --from_image"),
        ("interpolation", {"from_seed": 1, "to_image": __file__}, ".py is not supported"),
        (
            "interpolation",
            {"from_seed": 1, "to_seed": 2, "projection#starts": 0},
            "starts 0 must be at least 1",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    model: Path, tmp_path: Path, kind: str, settings: dict[str, Any], message: str
) -> None:
    assert message in run(kind, tmp_path, ckpt_path=model, **settings).error
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_latent_size_says_both(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    torch.save(make_generator(latent=20)[0].state_dict(), model)
    error = run("inference", tmp_path, ckpt_path=model).error
    assert str(model) in error and "its latent size is 20, the network's 12" in error


def test_a_model_without_its_json_has_the_bundles_own_network(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    model.with_suffix(".json").unlink()
    error = run("inference", tmp_path, ckpt_path=model).error
    assert f"its latent size is {LATENT}, the network's 100" in error


def test_without_a_model_it_says_train_first(tmp_path: Path) -> None:
    error = run("interpolation", tmp_path, ckpt_path=tmp_path / "model.pt", from_seed=1, to_seed=2).error
    assert "no trained model yet; train first" in error


@pytest.mark.realdata
@pytest.mark.skipif(not COVID.is_dir(), reason=f"{COVID} is not there")
def test_between_two_real_slices(model: Path, tmp_path: Path) -> None:
    first, second = sorted(COVID.iterdir())[:2]
    done = run("interpolation", tmp_path, ckpt_path=model, from_image=first, to_image=second, **QUICK)
    assert done.code == 0, done.err
    found = read_json(tmp_path / "out" / "interpolation.json")
    assert all(0 < found[end]["reconstruction"]["mae"] < 2 for end in ("from", "to"))


PARTS = {"train": 12, "val": 2, "test": 6}  # images of each class


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
    done = run("evaluating", tmp_path, dataset_dir=images, output_dir=tmp_path, resamples=5)
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
    done = run("evaluating", tmp_path, **settings, num_samples=40, batch_size=7)
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
    done = run("evaluating", tmp_path, **settings, heldout_dir=new.parent, resamples=3)
    assert done.code == 0, done.err
    found = read_json(tmp_path / "eval" / "metrics.json")
    assert found["split"] == "heldout" and found["metrics"]["recall"]["n"] == 8 and found["num_samples"] == 12
    assert "is in the training split too" in run("evaluating", tmp_path, **settings, heldout_dir=images).error


def test_a_class_that_the_images_lack_is_refused(images: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "models", classes=3)
    about = model.with_suffix(".json")
    write_json(about, {**read_json(about), "classes": ["none", "mild", "moderate"]})
    settings = {"dataset_dir": images, "output_dir": tmp_path, "ckpt_path": model}
    assert "no class moderate" in run("evaluating", tmp_path, **settings).error
