from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from torch import Tensor

from common.data.images import ImageDataset
from common.data.samples import Sample
from common.errors import UserError
from common.handlers.sample_report import SampleReport

CLASSES = ["low", "high"]


class Corners:
    """Four pixels as features: fast, and enough to tell images apart."""

    name = "corners"
    dimension = 4

    def __call__(self, images: Tensor) -> Tensor:
        return images[:, 0, ::20, ::20].flatten(1)[:, :4]


def dataset(folder: Path, count: int, seed: int) -> ImageDataset:
    """Noise of 32 x 32 pixels; of a patient's three slices two are "low" and one, brighter, is "high"."""
    numbers = np.random.default_rng(seed)
    folder.mkdir()
    samples = []
    for index in range(count):
        high = index % 3 == 2
        image = numbers.integers(0, 100, (32, 32), dtype=np.uint8) + np.uint8(120 * high)
        path = folder / f"s{seed}-{index}.png"
        Image.fromarray(image).save(path)
        samples.append(Sample(path, None, f"s{seed}p{index // 3}", category=CLASSES[high]))
    return ImageDataset(samples, CLASSES, 32)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, ImageDataset]:
    counts = {"test": 24, "validation": 9, "train": 30}
    return {name: dataset(tmp_path / name, count, count) for name, count in counts.items()}


def evaluated(report: SampleReport, predictions: Tensor) -> dict[str, Any]:
    """Runs over ``predictions`` in decollated batches of four, as MONAI's evaluator leaves them."""
    engine = Engine(lambda engine, batch: [{"pred": item} for item in batch])
    report.attach(engine)
    engine.run(predictions.split(4))
    return report.result


def test_files_appear_and_real_images_pass_for_real(
    parts: dict[str, ImageDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = tmp_path / "losses.csv"
    losses.write_text("iteration,epoch,G_loss,D_loss\n1,1,3.0,1.0\n2,2,2.0,0.5\n")
    out = tmp_path / "eval"
    settings: dict[str, Any] = {"losses": losses, "facts": {"model": "m.pt"}, "seed": 3, "resamples": 20}
    report = SampleReport(**parts, folder=out, extractor=Corners(), **settings)
    evaluated(report, torch.from_numpy(dataset(tmp_path / "new", 27, 5).images))
    found = json.loads((out / "metrics.json").read_text())
    assert found == report.result and found["apart"] == {}
    assert found["model"] == "m.pt" and found["split"] == "test" and found["extractor"] == "corners"
    metrics = found["metrics"]
    assert metrics["coverage"]["mean"] > 0.8 and metrics["coverage"]["n"] == 24
    assert metrics["fid_corners"]["mean"] < 0.2 < metrics["fid_corners"]["baselines"]["mean_image"]["mean"]
    names = ["convergence.png", "epochs.png", "galleries.png", "metrics.json", "nearest.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    shown = capsys.readouterr().out
    assert "test: 24 images, 27 generated" in shown and "real-real" in shown and "coverage *" in shown


def test_classes_are_reported_apart(parts: dict[str, ImageDataset], tmp_path: Path) -> None:
    """The generator draws "high" as "low" looks: each class says so, and only the one."""
    new = dataset(tmp_path / "new", 30, 5)
    images = torch.from_numpy(new.images)
    low = torch.from_numpy(new.classes == 0)
    images[~low] = images[low][: int((~low).sum())]
    settings: dict[str, Any] = {"classes": new.classes.tolist(), "resamples": 5}
    report = SampleReport(**parts, folder=tmp_path / "eval", extractor=Corners(), **settings)
    apart = evaluated(report, images)["apart"]
    assert list(apart) == CLASSES and apart["high"]["split"] == "high"
    low_metrics, high_metrics = (apart[name]["metrics"] for name in CLASSES)
    assert low_metrics["coverage"]["mean"] > 0.8 and high_metrics["coverage"]["mean"] == 0
    assert high_metrics["precision"]["n"] == 10 and high_metrics["recall"]["n"] == 8
    assert (tmp_path / "eval" / "classes.png").is_file()


def test_a_class_of_too_few_images_is_left_out(
    parts: dict[str, ImageDataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    report = SampleReport(**parts, folder=tmp_path / "e", extractor=Corners(), classes=[0] * 20, resamples=5)
    apart = evaluated(report, torch.from_numpy(parts["train"].images[:20]))["apart"]
    assert list(apart) == ["low"]
    assert "class high: 0 images are too few for metrics of its own" in caplog.messages


def test_no_image_is_shown_with_its_flip(parts: dict[str, ImageDataset], tmp_path: Path) -> None:
    test = parts.pop("test")
    report = SampleReport(test.with_flips(), **parts, folder=tmp_path, extractor=Corners())
    assert torch.equal(report._shown_real(), torch.from_numpy(test.images))


def test_few_images_are_named(parts: dict[str, ImageDataset], tmp_path: Path) -> None:
    report = SampleReport(**parts, folder=tmp_path / "eval", extractor=Corners())
    with pytest.raises(UserError, match="num_samples 5 is too few"):
        evaluated(report, torch.zeros(5, 1, 32, 32))
    few = dataset(tmp_path / "few", 4, 1)
    with pytest.raises(UserError, match="4 test images are too few"):
        SampleReport(**{**parts, "test": few}, folder=tmp_path / "eval", extractor=Corners())
