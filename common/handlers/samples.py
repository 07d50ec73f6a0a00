"""Pictures of fixed noise, to see an unconditional generator learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from common.handlers.images import COLUMNS, SEED, ImageGrid, grid_rows, sample
from common.handlers.scalars import ScalarLog


class SampleGrid(ImageGrid):
    """Shows what the generator makes of fixed noise, in rows of 8, and rows of real images below.

    Args:
        log: the run's log.
        batch: ``latent`` (B, L), ``class`` (B,) where the network takes it too, and ``image`` (N, 1, H, W) in
            [-1, 1] where there are real ones, which are company for the eye and not what the noise should
            become. All of them are shown.
        folder, network_name, interval, iterations: as `common.handlers.images.ImageGrid`.
    """

    def __init__(
        self,
        log: ScalarLog,
        batch: Mapping[str, torch.Tensor],
        folder: str | Path,
        network_name: str = "G",
        interval: int = 1,
        iterations: Sequence[int] = (),
    ) -> None:
        super().__init__(log, {}, folder, network_name, interval, iterations)
        self.batch = dict(batch)

    def tiles(self, iteration: int) -> list[torch.Tensor]:
        """The rows of a written grid, read back: (8, 1, H, W) in [0, 1] each; white where nothing was."""
        with Image.open(self.path(iteration)) as picture:
            pixels = np.asarray(picture)
        counts = [len(self.batch[name]) for name in ("latent", "image") if name in self.batch]
        return grid_rows(pixels, sum(-(-count // COLUMNS) for count in counts), COLUMNS)

    def _rows(self, network: nn.Module) -> list[torch.Tensor]:
        inputs = [self.batch[name] for name in ("latent", "class") if name in self.batch]
        kinds = [sample(network, inputs, SEED)]
        if "image" in self.batch:
            kinds.append(self.batch["image"].float().cpu())
        return [row for kind in kinds for row in in_rows(kind.add(1).div(2))]


def in_rows(images: torch.Tensor, columns: int = COLUMNS) -> list[torch.Tensor]:
    """(B, C, H, W) in rows of ``columns``, the last filled up with white."""
    missing = -len(images) % columns
    return list(torch.cat([images, images.new_ones(missing, *images.shape[1:])]).split(columns))
