"""The diffusion overlays: they train, go on after a stop, and their models are used like any generator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.files import read_json
from common.inference.checkpoint import load_weights, network_for
from common.networks.diffusion import DiffusionGenerator
from common.tools.export import ExportSettings, export
from tests.bundles.case import BundleCase
from tests.bundles.dcgan_covid.case import CASE as DCGAN
from tests.bundles.pix2pix_covid.case import CASE as PIX2PIX
from tests.bundles.runs import Run, forked

pytest.importorskip("einops", reason='MONAI\'s attention needs it: pip install ".[diffusion]"')

TINY = {
    "image_size": 32,
    "batch_size": 2,
    "max_epochs": 2,
    "ema_half_life": 10,
    "network_def#channels": "[32,32]",
    "network_def#attention": "[False,True]",
    "sampling_steps": 2,
    "val_interval": 1,
    "image_interval": 1,
}
PASSES = 2
Trained = tuple[BundleCase, Path, Path]


def train(case: BundleCase, data: Path, folder: Path, **more: Any) -> Run:
    settings = {**TINY, "dataset_dir": data, "output_dir": folder, **case.augment, **more}
    settings.pop("discriminator_augment", None)
    return forked(case.arguments("training", ["train", "diffusion"], **settings), folder.with_name("log"))


@pytest.fixture(scope="module", params=[PIX2PIX, DCGAN], ids=lambda case: case.name)
def trained(
    request: pytest.FixtureRequest, data_of: Callable[[BundleCase], Path], tmp_path_factory: Any
) -> Trained:
    """A bundle, its made data set, and a run of two epochs."""
    case: BundleCase = request.param
    folder = tmp_path_factory.mktemp(f"diffusion-{case.name}") / "run"
    run = train(case, data_of(case), folder)
    assert run.code == 0, run.err
    return case, data_of(case), folder


def test_the_model_says_what_it_is(trained: Trained) -> None:
    case, _, folder = trained
    model = folder / "models" / "model.pt"
    info = read_json(model.with_suffix(".json"))
    assert info["network"]["arguments"]["sampling_steps"] == PASSES
    assert set(info["metrics"]) == case.metrics
    network = load_weights(network_for(model, torch.nn.Identity()), model, "")
    assert isinstance(network, DiffusionGenerator)
    assert network.condition_channels == (case is PIX2PIX)


def test_a_stopped_and_resumed_run_is_the_straight_one(trained: Trained, tmp_path: Path) -> None:
    case, data, straight = trained
    for epochs in (1, 2):
        run = train(case, data, tmp_path / "run", max_epochs=epochs, resume=epochs > 1)
        assert run.code == 0, run.err
    for name in ("models/model.pt", "models/model.json", "logs/losses.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (straight / name).read_bytes(), name


def test_it_is_evaluated_without_the_overlay(trained: Trained, tmp_path: Path) -> None:
    case, data, folder = trained
    given = {"dataset_dir": data, "output_dir": tmp_path, "ckpt_path": folder / "models" / "model.pt"}
    settings = {**case.evaluating(data), **given, "resamples": 20} if case is DCGAN else given
    run = forked(case.arguments("evaluating", "evaluate", **settings), tmp_path / "log")
    assert run.code == 0, run.err
    metrics = read_json(tmp_path / "eval" / "metrics.json")
    assert metrics["network_passes"] == PASSES
    assert metrics["metrics"]["fid_gridvgg"]["n"] > 0


def test_inference_is_the_same_in_every_run(trained: Trained, tmp_path: Path) -> None:
    case, data, folder = trained
    written = []
    for name in ("one", "other"):
        given = {**case.inference(data), "ckpt_path": folder / "models" / "model.pt"}
        out = tmp_path / name
        run = forked(case.arguments("inference", "inference", output_dir=out, **given), tmp_path / "log")
        assert run.code == 0, run.err
        images = [path for path in sorted(out.rglob("*")) if path.suffix in (".png", ".gz")]
        written.append({path.relative_to(out): path.read_bytes() for path in images})
    assert written[0] == written[1] and len(written[0]) >= 3


def test_real_slices_are_not_projected(trained: Trained, tmp_path: Path) -> None:
    case, _, folder = trained
    if case is not DCGAN:
        pytest.skip("only dcgan_covid projects real slices")
    slice_ = tmp_path / "slice.png"
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(slice_)
    given = {"ckpt_path": folder / "models" / "model.pt", "output_dir": tmp_path / "out", "to_seed": 2}
    run = forked(case.arguments("interpolation", "inference", from_image=slice_, **given), tmp_path / "log")
    assert run.code != 0 and "without gradients" in run.err.strip().splitlines()[-1]
    run = forked(case.arguments("interpolation", "inference", from_seed=1, **given), tmp_path / "log")
    assert run.code == 0, run.err


def test_the_sampling_loop_is_not_exported(trained: Trained, tmp_path: Path) -> None:
    case, _, folder = trained
    for kind in ("torchscript", "onnx"):
        settings = ExportSettings(case.name, kind, folder / "models" / "model.pt", tmp_path / "out")
        with pytest.raises(UserError, match="diffusion model"):
            export(settings)
    assert not list(tmp_path.iterdir())
