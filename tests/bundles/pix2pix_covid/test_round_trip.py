"""Training, evaluating, inference: what each leaves behind, and that the next one takes it up."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bundles.pix2pix_covid.networks import UnetGenerator
from common.files import read_json
from common.inference.models import network_for
from tests.bundles.pix2pix_covid.case import CASE, arguments
from tests.bundles.runs import Run, forked

Trained = tuple[Path, Run]
LOGGED = {
    *("loss", "D_loss", "G_loss", "D_adversarial", "G_adversarial", "G_l1"),
    *("D_accuracy_real", "D_accuracy_fake", "D_accuracy_real_ema", "D_accuracy_fake_ema"),
}
METRICS = {
    *("fid_randvgg", "kid_randvgg", "lesion_faithfulness", "lesion_contrast_error"),
    *("ssim", "psnr", "mae", "mse"),
}
# An oblique scan with its first axis to the right and its third to the feet.
TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = TURN @ np.diag([9.0, -11.0, -5.0]), (-120, 80, 33)


def lesion(shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[5:14, 8:12] = 1
    mask[10:14, 8:20] = 1
    return mask


def infer(trained: Trained, masks: Path, output: Path) -> Run:
    settings = {"ckpt_path": trained[0] / "models" / "model.pt", "input_dir": masks, "output_dir": output}
    return forked(arguments("inference", "inference", **settings), output.with_name("inference"))


def test_training_ends_well_and_writes_these_files(trained: Trained) -> None:
    folder, run = trained
    assert run.code == 0, run.err
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    events = {name for name in files if name.startswith("logs/events.out.tfevents.")}
    models = {f"models/{name}" for name in ("model.pt", "model.json", "resume.pt", "resume_previous.pt")}
    pictures = {f"logs/samples/iteration_{step:06d}.png" for step in (10, 20)}
    assert len(events) == 1
    assert files == {*models, *events, *pictures, "logs/losses.csv"}


def test_the_model_is_a_flat_state_dict(trained: Trained) -> None:
    path = trained[0] / "models" / "model.pt"
    state = torch.load(path, weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    arguments = read_json(path.with_suffix(".json"))["network"]["arguments"]
    assert (arguments["levels"], arguments["ngf"]) == (5, 4)
    UnetGenerator(**arguments).load_state_dict(state, strict=True)


def test_the_model_knows_how_it_was_made(trained: Trained, pairs: Path) -> None:
    path = trained[0] / "models" / "model.pt"
    info = read_json(path.with_suffix(".json"))
    assert info["window_hu"] == [-1000, 400] and info["nominal_hu"] is False
    assert info["image_size"] == 32 and info["standardiser"]["method"] == "none"
    assert info["slices"] == {"train": 20, "val": 8, "test": 4}
    assert (info["iteration"], info["epoch"]) == (20, 2)
    assert set(info["metrics"]) == {"fid_randvgg", "lesion_faithfulness"}
    network = network_for(path, otherwise=torch.nn.Identity())
    network.load_state_dict(torch.load(path, weights_only=True), strict=True)


def test_every_loss_is_in_the_table_and_in_tensorboard(trained: Trained) -> None:
    with (trained[0] / "logs" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"iteration", "epoch", *LOGGED}
    assert [(int(row["iteration"]), int(row["epoch"])) for row in rows] == [
        (step, 1 + (step > 10)) for step in range(1, 21)
    ]
    events = EventAccumulator(str(trained[0] / "logs")).Reload()
    assert {f"train/{name}" for name in LOGGED} <= set(events.Tags()["scalars"])
    assert {"val/fid_randvgg", "val/lesion_faithfulness"} <= set(events.Tags()["scalars"])
    for name in LOGGED:
        found = {event.step: event.value for event in events.Scalars(f"train/{name}")}
        assert found == {int(row["iteration"]): pytest.approx(float(row[name]), rel=1e-6) for row in rows}


def test_tensorboard_holds_the_image_grids(trained: Trained) -> None:
    events = EventAccumulator(str(trained[0] / "logs")).Reload()
    images = events.Images("samples")
    assert [image.step for image in images] == [10, 20]
    assert {(image.width, image.height) for image in images} == {(8 * 34 - 2, 3 * 34 - 2)}


def test_evaluating_writes_metrics_with_baselines_and_pictures(trained: Trained, pairs: Path) -> None:
    folder = trained[0]
    settings = {"dataset_dir": pairs, "output_dir": folder}
    run = forked(arguments("evaluating", "evaluate", **settings), folder.with_name("evaluating"))
    assert run.code == 0, run.err
    result = read_json(folder / "eval" / "metrics.json")
    assert set(result["metrics"]) >= METRICS
    assert result["leading"] == ["fid_randvgg", "lesion_faithfulness"]
    for name, metric in result["metrics"].items():
        assert len(metric["baselines"]) == 3, name
        for values in (metric, *metric["baselines"].values()):
            assert set(values) >= {"mean", "interval", "n"} and len(values["interval"]) == 2
        assert name in run.out
    assert result["metrics"]["mae"]["n"] == 4
    for name in ("panel.png", "convergence.png"):
        with Image.open(folder / "eval" / name) as picture:
            assert min(picture.size) > 100


def test_pictures_keep_names_and_sizes(trained: Trained, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, shape in (("first", (40, 28)), ("second.b", (32, 32))):
        Image.fromarray(lesion(shape) * np.uint8(255)).save(masks / f"{name}.png")
    run = infer(trained, masks, tmp_path / "out")
    assert run.code == 0, run.err
    found = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as picture:
            found[path.name] = (picture.size, picture.mode, bool(np.ptp(np.asarray(picture)) > 0))
    assert found == {"first.png": ((28, 40), "L", True), "second.b.png": ((32, 32), "L", True)}


def test_volumes_keep_geometry_and_carry_hu(trained: Trained, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    volume = np.stack([lesion((36, 30)), lesion((36, 30))[::-1], lesion((36, 30)) * 0], axis=-1)
    written = {
        "volume": nib.Nifti1Image(volume, OBLIQUE),
        "turned": nib.as_closest_canonical(nib.Nifti1Image(volume, OBLIQUE)),
        "slice": nib.Nifti1Image(lesion((36, 30)), OBLIQUE),
    }
    for name, image in written.items():
        nib.save(image, masks / f"{name}.nii.gz")
    run = infer(trained, masks, tmp_path / "out")
    assert run.code == 0, run.err
    for name, mask in written.items():
        ct = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert ct.get_data_dtype() == np.int16 and ct.shape == mask.shape
        np.testing.assert_allclose(ct.affine, mask.affine, atol=1e-4)
        values = np.asarray(ct.dataobj)
        assert values.min() >= -1000 and values.max() <= 400 and np.ptp(values) > 0
    # The same scan stored with other axes gives the same scan.
    one, other = (nib.load(tmp_path / "out" / f"{name}.nii.gz") for name in ("volume", "turned"))
    np.testing.assert_array_equal(nib.as_closest_canonical(one).get_fdata(), other.get_fdata())


def test_same_seed_same_bytes(trained: Trained, pairs: Path, tmp_path: Path) -> None:
    assert forked(CASE.training(pairs, tmp_path / "again", max_epochs=2), tmp_path / "again").code == 0
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (trained[0] / name).read_bytes(), name
