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

from common.data.datasets import ImageDataset, PairDataset
from common.data.layouts import find_samples
from common.data.samples import Sample
from common.errors import UserError
from common.handlers.evaluation_report import CollectedReport, EvaluationReport, SampleReport
from tests.common.data.made_sets import image_dataset, pair_dataset


class Corners:
    """Four pixels as features: fast, and enough to tell images apart."""

    name = "corners"
    dimension = 4

    def __call__(self, images: Tensor) -> Tensor:
        return images[:, 0, ::20, ::20].flatten(1)[:, :4]


def dataset(folder: Path, patients: int, seed: int) -> PairDataset:
    """Two slices a patient, 32 x 32, a bright lesion of growing size on noise."""
    numbers = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(2 * patients):
        mask = np.zeros((32, 32), np.uint8)
        mask[8 : 12 + number, 10:18] = 255
        image = numbers.integers(0, 60, mask.shape, dtype=np.uint8) + np.uint8(120) * (mask > 0)
        for kind, array in (("images", image), ("masks", mask)):
            Image.fromarray(array).save(folder / kind / f"s{seed}p{number // 2}_{number % 2}.png")
    return pair_dataset(find_samples(folder), 32)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, PairDataset]:
    names = {"test": 3, "doctor": 2, "train": 4}
    return {name: dataset(tmp_path / name, count, count) for name, count in names.items()}


def evaluated(report: CollectedReport, predictions: Tensor) -> dict[str, Any]:
    """Runs over ``predictions`` in decollated batches of four, as MONAI's evaluator leaves them."""
    engine = Engine(lambda engine, batch: [{"pred": item} for item in batch])
    report.attach(engine)
    engine.run(predictions.split(4))
    return report.result


def test_real_images_as_predictions_are_perfect_and_files_appear(
    parts: dict[str, PairDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = parts.pop("train")
    losses = tmp_path / "losses.csv"
    losses.write_text("iteration,epoch,G_loss,D_loss\n1,1,3.0,1.0\n2,1,2.0,0.5\n")
    out = tmp_path / "eval"
    report = EvaluationReport(parts, train, out, Corners(), losses, {"model": "m.pt"}, seed=3, resamples=30)
    real = torch.cat([torch.from_numpy(part.images) for part in parts.values()])
    evaluated(report, real)
    found = json.loads((out / "metrics.json").read_text())
    assert found == json.loads(json.dumps(report.result))
    assert found["model"] == "m.pt" and found["split"] == "test" and list(found["apart"]) == ["doctor"]
    assert found["metrics"]["mae"]["mean"] == 0 and found["metrics"]["mae"]["n"] == 6
    assert found["apart"]["doctor"]["metrics"]["mae"]["n"] == 4
    assert found["metrics"]["fid_corners"]["mean"] == pytest.approx(0, abs=1e-6)
    assert set(found["metrics"]["mae"]["baselines"]) == {
        *("mean_image", "nearest_mask", "real_real", "blurred_real")
    }
    assert found["metrics"]["excess_kid_corners"]["baselines"]["real_real"]["mean"] == pytest.approx(0)
    assert found["metrics"]["excess_kid_corners"]["baselines"]["blurred_real"]["mean"] == pytest.approx(1)
    assert found["metrics"]["mae"]["baselines"]["mean_image"]["mean"] > 0.05
    assert sorted(path.name for path in out.iterdir()) == [
        "convergence.png",
        "metrics.json",
        "panel.png",
        "panel_doctor.png",
    ]
    shown = capsys.readouterr().out
    assert "test: 6 slices" in shown and "doctor: 4 slices" in shown and "fid_corners" in shown


def test_every_part_gets_its_own_predictions(parts: dict[str, PairDataset], tmp_path: Path) -> None:
    train = parts.pop("train")
    report = EvaluationReport(parts, train, tmp_path / "eval", Corners(), resamples=30)
    real = [torch.from_numpy(part.images) for part in parts.values()]
    evaluated(report, torch.cat([real[0] + 0.25, real[1] + 0.5]))
    assert report.result["metrics"]["mae"]["mean"] == pytest.approx(0.25, abs=1e-3)
    assert report.result["apart"]["doctor"]["metrics"]["mae"]["mean"] == pytest.approx(0.5, abs=1e-3)
    assert not (tmp_path / "eval" / "convergence.png").exists()


def test_sets_without_masks_are_refused(parts: dict[str, PairDataset], tmp_path: Path) -> None:
    for item in parts["test"].items:
        del item["label"]
    with pytest.raises(UserError, match="needs masks"):
        EvaluationReport({"test": parts["test"]}, parts["train"], tmp_path, Corners())


class Hearts:
    """Slices of a heart in arrays that are made anew at each access: two structures on noise, LV and Ao."""

    def __init__(self, patients: int, seed: int) -> None:
        names = [(patient, index) for patient in range(patients) for index in range(3)]
        self.samples = [Sample(Path(f"s{seed}p{p}.nii.gz"), None, f"s{seed}p{p}", i) for p, i in names]
        numbers = np.random.default_rng(seed)
        self.noise = numbers.normal(-0.7, 0.05, (len(names), 1, 32, 32)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "label": self.labels[index], "sample": index}

    @property
    def labels(self) -> np.ndarray:
        labels = np.zeros((len(self), 1, 32, 32), np.float32)
        for index, label in enumerate(labels):
            label[0, 16 : 20 + index % 5, 10:20] = 1
        labels[1:, 0, 4:10, 18:26] = 2
        return labels

    @property
    def images(self) -> np.ndarray:
        return self.noise + 0.6 * (self.labels == 1) + np.float32(0.9) * (self.labels == 2)


class Contrasts(Hearts):
    """The condition is the image in another contrast."""

    @property
    def labels(self) -> np.ndarray:
        return np.clip(-self.noise - 1.5 * (super().labels > 0), -1, 1)

    @property
    def images(self) -> np.ndarray:
        return self.noise


def test_each_structure_has_its_metrics_and_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, train = Hearts(2, 5), Hearts(3, 6)
    report = EvaluationReport(
        {"test": test}, train, tmp_path, Corners(), structures=["LV", "Ao"], resamples=30
    )
    drawn = torch.from_numpy(np.where(test.labels == 2, test.images - np.float32(0.45), test.images))
    evaluated(report, drawn)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["leading"] == ["fid_corners", "structure_faithfulness"]
    assert found["metrics"]["structure_faithfulness"]["mean"] == pytest.approx(0.75, abs=0.01)
    assert not any(name.startswith("lesion") for name in found["metrics"])
    assert list(found["structures"]) == ["LV", "Ao"]
    aorta = found["structures"]["Ao"]
    assert aorta["mse"]["mean"] == pytest.approx(0.45**2, rel=1e-3) and aorta["mse"]["n"] == 5
    assert found["structures"]["LV"]["mse"]["mean"] == 0 and found["structures"]["LV"]["mse"]["n"] == 6
    names = {"mean_image", "nearest_mask", "real_real", "blurred_real"}
    assert set(aorta["fid_corners"]["baselines"]) == names
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["panel.png", "panel_structures.png"]
    shown = capsys.readouterr().out
    assert "structure_faithfulness *" in shown and "\nAo " in shown and "(nearest-mask, mean-image)" in shown


def test_condition_images_have_neither_structures_nor_lesions(tmp_path: Path) -> None:
    test = Contrasts(2, 5)
    report = EvaluationReport(
        {"test": test}, Contrasts(3, 6), tmp_path, Corners(), structures=["LV", "Ao"], resamples=30
    )
    evaluated(report, torch.from_numpy(test.images))
    assert report.result["leading"] == ["fid_corners"] and "structures" not in report.result
    assert not any("faithfulness" in name for name in report.result["metrics"])
    assert [path.name for path in tmp_path.glob("*.png")] == ["panel.png"]


CLASSES = ["low", "high"]


def noise_dataset(folder: Path, count: int, seed: int) -> ImageDataset:
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
    return image_dataset(samples, CLASSES, 32)


@pytest.fixture
def image_parts(tmp_path: Path) -> dict[str, ImageDataset]:
    counts = {"test": 24, "validation": 9, "train": 30}
    return {name: noise_dataset(tmp_path / name, count, count) for name, count in counts.items()}


def test_files_appear_and_real_images_pass_for_real(
    image_parts: dict[str, ImageDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = tmp_path / "losses.csv"
    losses.write_text("iteration,epoch,G_loss,D_loss\n1,1,3.0,1.0\n2,2,2.0,0.5\n")
    out = tmp_path / "eval"
    settings: dict[str, Any] = {"losses": losses, "facts": {"model": "m.pt"}, "seed": 3, "resamples": 20}
    report = SampleReport(**image_parts, folder=out, extractor=Corners(), **settings)
    evaluated(report, torch.from_numpy(noise_dataset(tmp_path / "new", 27, 5).images))
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


def test_classes_are_reported_apart(image_parts: dict[str, ImageDataset], tmp_path: Path) -> None:
    """The generator draws "high" as "low" looks: each class says so, and only the one."""
    new = noise_dataset(tmp_path / "new", 30, 5)
    images = torch.from_numpy(new.images)
    low = torch.from_numpy(new.classes == 0)
    images[~low] = images[low][: int((~low).sum())]
    settings: dict[str, Any] = {"classes": new.classes.tolist(), "resamples": 5}
    report = SampleReport(**image_parts, folder=tmp_path / "eval", extractor=Corners(), **settings)
    apart = evaluated(report, images)["apart"]
    assert list(apart) == CLASSES and apart["high"]["split"] == "high"
    low_metrics, high_metrics = (apart[name]["metrics"] for name in CLASSES)
    assert low_metrics["coverage"]["mean"] > 0.8 and high_metrics["coverage"]["mean"] == 0
    assert high_metrics["precision"]["n"] == 10 and high_metrics["recall"]["n"] == 8
    assert (tmp_path / "eval" / "classes.png").is_file()


def test_a_class_of_too_few_images_is_left_out(
    image_parts: dict[str, ImageDataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    report = SampleReport(
        **image_parts,
        folder=tmp_path / "e",
        extractor=Corners(),
        classes=[0] * 20,
        resamples=5,
    )
    apart = evaluated(report, torch.from_numpy(image_parts["train"].images[:20]))["apart"]
    assert list(apart) == ["low"]
    assert "class high: 0 images are too few for metrics of its own" in caplog.messages


def test_no_image_is_shown_with_its_flip(image_parts: dict[str, ImageDataset], tmp_path: Path) -> None:
    test = image_parts.pop("test")
    report = SampleReport(test.with_flips(), **image_parts, folder=tmp_path, extractor=Corners())
    assert torch.equal(report._shown_real(), torch.from_numpy(test.images))


def test_few_images_are_named(image_parts: dict[str, ImageDataset], tmp_path: Path) -> None:
    report = SampleReport(**image_parts, folder=tmp_path / "eval", extractor=Corners())
    with pytest.raises(UserError, match="num_samples 5 is too few"):
        evaluated(report, torch.zeros(5, 1, 32, 32))
    few = noise_dataset(tmp_path / "few", 4, 1)
    with pytest.raises(UserError, match="4 test images are too few"):
        SampleReport(
            **{**image_parts, "test": few},
            folder=tmp_path / "eval",
            extractor=Corners(),
        )
