from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from torch import Tensor

from common.data.layouts import find_samples
from common.data.pairs import PairDataset
from common.errors import UserError
from common.handlers.report import EvaluationReport, panel_rows


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
    return PairDataset(find_samples(folder), 32)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, PairDataset]:
    names = {"test": 3, "doctor": 2, "train": 4}
    return {name: dataset(tmp_path / name, count, count) for name, count in names.items()}


def evaluated(report: EvaluationReport, predictions: Tensor) -> None:
    """Runs over ``predictions`` in decollated batches of four, as MONAI's evaluator leaves them."""
    engine = Engine(lambda engine, batch: [{"pred": item} for item in batch])
    report.attach(engine)
    engine.run(predictions.split(4))


def test_real_images_as_predictions_are_perfect_and_files_appear(
    parts: dict[str, PairDataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = parts.pop("train")
    losses = tmp_path / "losses.csv"
    losses.write_text("iteration,epoch,G_loss,D_loss\n1,1,3.0,1.0\n2,1,2.0,0.5\n")
    out = tmp_path / "eval"
    report = EvaluationReport(parts, train, out, Corners(), losses, {"model": "m.pt"}, seed=3)
    real = torch.cat([torch.from_numpy(part.images) for part in parts.values()])
    evaluated(report, real)
    found = json.loads((out / "metrics.json").read_text())
    assert found == json.loads(json.dumps(report.result))
    assert found["model"] == "m.pt" and found["split"] == "test" and list(found["apart"]) == ["doctor"]
    assert found["metrics"]["mae"]["mean"] == 0 and found["metrics"]["mae"]["n"] == 6
    assert found["apart"]["doctor"]["metrics"]["mae"]["n"] == 4
    assert found["metrics"]["fid_corners"]["mean"] == pytest.approx(0, abs=1e-6)
    assert set(found["metrics"]["mae"]["baselines"]) == {"mean_image", "nearest_mask", "real_real"}
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
    report = EvaluationReport(parts, train, tmp_path / "eval", Corners())
    real = [torch.from_numpy(part.images) for part in parts.values()]
    evaluated(report, torch.cat([real[0] + 0.25, real[1] + 0.5]))
    assert report.result["metrics"]["mae"]["mean"] == pytest.approx(0.25, abs=1e-3)
    assert report.result["apart"]["doctor"]["metrics"]["mae"]["mean"] == pytest.approx(0.5, abs=1e-3)
    assert not (tmp_path / "eval" / "convergence.png").exists()


def test_sets_without_masks_are_refused(parts: dict[str, PairDataset], tmp_path: Path) -> None:
    parts["test"].labels = None
    with pytest.raises(UserError, match="needs masks"):
        EvaluationReport({"test": parts["test"]}, parts["train"], tmp_path, Corners())


def test_panel_rows_go_from_the_largest_lesion_to_the_smallest() -> None:
    labels = torch.zeros(5, 1, 4, 4)
    for row, pixels in enumerate((2, 5, 0, 5, 9)):
        labels[row, 0].view(-1)[:pixels] = 1
    assert panel_rows(labels, 8) == [4, 1, 3, 0, 2]
    assert panel_rows(labels, 3) == [4, 3, 2]
    assert panel_rows(labels, 1) == [4]
