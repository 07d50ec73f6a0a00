"""Pictures of a fixed validation batch, to see the generator learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import nn

from common.files import atomic_write
from common.handlers.readings import epoch_due, sampling_network
from common.handlers.scalars import ScalarLog
from common.training.distributed import is_main
from common.training.modes import evaluating, preserved_rng

TAG = "samples"
GAP = 2  # pixels between the pictures of a grid
COLUMNS = 8
SEED = 0


class ImageGrid:
    """Shows a fixed batch (condition, generated, real: a row each) in TensorBoard and as PNG files.

    The network is the moving average of the generator where there is one, in evaluation mode. The run's
    random states and the network's modes are left as they were; every grid is drawn with the same random
    numbers.

    Args:
        log: the run's log.
        batch: ``label`` (B, C, H, W) or ``latent`` for the network, and ``image`` (B, 1, H, W) in [-1, 1]
            where there are real ones; the first 8 are shown.
        folder: for ``iteration_000123.png``.
        network_name: the generator's name in ``engine.networks``.
        interval: epochs between two grids; 0 for none.
        iterations: further iterations to show.
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
        self.log, self.folder, self.network_name = log, Path(folder), network_name
        self.batch = {name: batch[name][:COLUMNS] for name in ("label", "latent", "image") if name in batch}
        self.interval, self.iterations = interval, frozenset(iterations)

    def attach(self, engine: Engine) -> None:
        """Attach after the log."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._show_when_due)

    def _show_when_due(self, engine: Engine) -> None:
        due = engine.state.iteration in self.iterations or epoch_due(engine, self.interval)
        if due and is_main():
            self.show(engine)

    def show(self, engine: Engine) -> None:
        """Writes the grid of this iteration."""
        step = engine.state.iteration
        grid = image_grid(self._rows(sampling_network(engine, self.network_name)))
        self.log.add_image(TAG, grid, step)
        with atomic_write(self.folder / f"iteration_{step:06d}.png") as temporary:
            Image.fromarray(grid).save(temporary)

    def _rows(self, network: nn.Module) -> list[torch.Tensor]:
        condition = self.batch["label"] if "label" in self.batch else self.batch["latent"]
        generated = sample(network, condition, SEED)
        rows = [label_picture(self.batch["label"])] if "label" in self.batch else []
        rows.append(generated.add(1).div(2))
        if "image" in self.batch:
            rows.append(self.batch["image"].float().cpu().add(1).div(2))
        return rows


def sample(network: nn.Module, condition: torch.Tensor, seed: int) -> torch.Tensor:
    """The network's images for ``condition``, float32 on the CPU; modes and random states stay."""
    device = next(network.parameters()).device
    with evaluating(network), preserved_rng(seed), torch.inference_mode():
        return network(condition.to(device)).float().cpu()


def label_picture(label: torch.Tensor) -> torch.Tensor:
    """Grey levels (B, 1, H, W) in [0, 1] of a label (B, C, H, W): channel c shows as (c + 1) / C."""
    levels = torch.arange(1, label.shape[1] + 1).view(1, -1, 1, 1) / label.shape[1]  # (1, C, 1, 1)
    return (label.float().cpu() * levels).amax(dim=1, keepdim=True)


def image_grid(rows: Sequence[torch.Tensor]) -> np.ndarray:
    """Rows of images (B, 1, H, W) in [0, 1] (clipped) as one uint8 picture with white gaps between them."""
    stack = torch.stack([row[:, 0] for row in rows]).clamp(0, 1)  # (R, B, H, W)
    padded = nn.functional.pad(stack, (0, GAP, 0, GAP), value=1.0)  # (R, B, H + GAP, W + GAP)
    count, columns, height, width = padded.shape
    picture = padded.permute(0, 2, 1, 3).reshape(count * height, columns * width)  # (R * H', B * W')
    return picture[:-GAP, :-GAP].mul(255).round().to(torch.uint8).numpy()
