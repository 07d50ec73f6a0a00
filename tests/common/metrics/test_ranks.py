"""The ignite metrics under two processes: each sees a part of the set, all report the whole."""

from __future__ import annotations

from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from torch import Tensor

from common.metrics.fid import fid
from common.metrics.ignite_metrics import (
    FrechetDistance,
    ImageMean,
    LesionFaithfulness,
    StructureFaithfulness,
)
from common.metrics.image_quality import mae

pytestmark = pytest.mark.slow


class Corners:
    name = "corners"
    dimension = 3

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 0, -1], images.mean((1, 2, 3))], dim=1)


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    numbers = torch.Generator().manual_seed(1)
    found = []
    for count in (3, 5, 2):  # uneven on purpose
        label = torch.zeros(count, 1, 20, 20)
        label[:, :, 8:12, 8:12] = 1
        image = torch.rand(count, 1, 20, 20, generator=numbers) * 0.2 - 0.8 + 0.5 * label
        label[-1] *= 2  # of class 2, and drawn with another contrast
        found.append((image * (0.7 - 0.2 * (label == 2)), image, label))
    return found


def measured(shares: list[tuple[Tensor, Tensor, Tensor]]) -> list[float]:
    metrics = [FrechetDistance(Corners()), LesionFaithfulness(), StructureFaithfulness(2), ImageMean(mae)]
    for metric in metrics:
        for batch in shares:
            metric.update(batch)
    return [metric.compute() for metric in metrics]


def work(rank: int, folder: str) -> None:
    torch.save(torch.tensor(measured(batches()[rank::2])), Path(folder) / f"{rank}.pt")


def test_two_processes_report_the_whole_set(tmp_path: Path) -> None:
    with idist.Parallel(backend="gloo", nproc_per_node=2) as parallel:
        parallel.run(work, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = measured(batches())
    assert first.tolist() == pytest.approx(alone, rel=1e-5) and torch.equal(first, second)
    real = torch.cat([Corners()(image) for _, image, _ in batches()])
    fake = torch.cat([Corners()(pred) for pred, _, _ in batches()])
    assert alone[0] == pytest.approx(fid(real, fake), rel=1e-6)
