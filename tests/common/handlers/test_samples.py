from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from common.handlers.samples import SampleGrid
from common.handlers.scalars import ScalarLog


class Levels(nn.Module):
    """An image of one gray: the latent's first value, and a tenth for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones(1))

    def forward(self, latent: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        level = latent[:, 0] if condition is None else latent[:, 0] + 0.1 * condition
        return self.unit * level[:, None, None, None].expand(-1, 1, 4, 4)


def run(trainer: Any, logs: Any, folder: Path, batch: dict[str, torch.Tensor]) -> SampleGrid:
    log = ScalarLog(folder)
    grid = SampleGrid(log, batch, folder / "samples", iterations=[8])
    engine = trainer(logs, [log, grid])
    engine.networks = {"G": Levels()}
    engine.train(8)
    return grid


def test_rows_of_noise_then_real_images(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    latent = torch.linspace(-1, 0.5, 16)[:, None]
    real = torch.full((3, 1, 4, 4), -1.0)
    grid = run(trainer, plain_losses, tmp_path, {"latent": latent, "image": real})
    path = grid.path(8)
    with Image.open(path) as picture:
        assert np.asarray(picture).shape == (3 * 6 - 2, 8 * 6 - 2)
    rows = grid.tiles(8)
    assert [tuple(row.shape) for row in rows] == [(8, 1, 4, 4)] * 3
    drawn = torch.cat(rows[:2])[:, 0, 1, 1]
    torch.testing.assert_close(drawn, latent[:, 0].add(1).div(2), atol=2e-3, rtol=0)
    assert rows[2][:, 0, 0, 0].tolist() == [0.0] * 3 + [1.0] * 5


def test_a_row_for_each_class(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    batch = {"latent": torch.zeros(16, 1), "class": torch.arange(2).repeat_interleave(8)}
    rows = run(trainer, plain_losses, tmp_path, batch).tiles(8)
    assert len(rows) == 2
    assert abs(float(rows[1].mean() - rows[0].mean()) - 0.05) < 3e-3
