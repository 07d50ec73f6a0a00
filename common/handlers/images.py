"""Pictures of a fixed validation batch, to see the generator learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import nn

from common.errors import UserError
from common.files import atomic_write
from common.handlers.readings import epoch_due, sampling_network
from common.handlers.scalars import ScalarLog
from common.metrics.colours import class_picture, label_picture
from common.provenance import SHEET, png_text
from common.training.distributed import is_main
from common.training.modes import evaluating, preserved_rng

TAG = "samples"
GAP = 2  # pixels between the pictures of a grid
COLUMNS = 8
COLOURS = 3  # channels of a coloured picture
SEED = 0
SHOWN = ("label", "latent", "annotation", "image")


class ImageGrid:
    """Shows a fixed batch (condition, generated, real: a row each) in TensorBoard and as PNG files.

    The network is the moving average of the generator where there is one, in evaluation mode. The run's
    random states and the network's modes are left as they were; every grid is drawn with the same random
    numbers.

    When a run starts at iteration ``n``, pictures of later iterations are removed: an earlier, killed run
    left them, and this run will draw them again.

    Of a network that draws a label map beside the image, as logits in the channels behind it, the map and the
    true one are two more rows before the real images.

    Args:
        log: the run's log.
        batch: ``label`` (B, C, H, W) or ``latent`` for the network, and ``image`` (B, 1, H, W) in [-1, 1]
            where there are real ones, ``annotation`` (B, 1, H, W), class indices, where there are true maps;
            the first 8 are shown.
        folder: for ``iteration_000123.png``.
        network_name: the generator's name in ``engine.networks``.
        interval: epochs between two grids; 0 for none.
        iterations: further iterations to show; 0 is the untrained network.
    Raises:
        UserError: ``iterations`` is no list.
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
        self.batch = {name: batch[name][:COLUMNS] for name in SHOWN if name in batch}
        if not isinstance(iterations, Sequence) or isinstance(iterations, str):
            raise UserError(f"image_iterations {iterations}: give a list, such as [0, 1000]")
        self.interval, self.iterations = interval, frozenset(iterations)

    def attach(self, engine: Engine) -> None:
        """Attach after the log."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._show_when_due)

    def path(self, iteration: int) -> Path:
        """Where the grid of an iteration is or would be."""
        return self.folder / f"iteration_{iteration:06d}.png"

    def _start(self, engine: Engine) -> None:
        if not is_main():
            return
        for path in self.folder.glob("iteration_*.png"):
            number = path.stem.removeprefix("iteration_")
            if number.isdigit() and int(number) > engine.state.iteration:
                path.unlink()
        if engine.state.iteration == 0 and 0 in self.iterations:
            self.show(engine)

    def _show_when_due(self, engine: Engine) -> None:
        due = engine.state.iteration in self.iterations or epoch_due(engine, self.interval)
        if due and is_main():
            self.show(engine)

    def show(self, engine: Engine) -> None:
        """Writes the grid of this iteration."""
        step = engine.state.iteration
        grid = image_grid(self._rows(sampling_network(engine, self.network_name)))
        self.log.add_image(TAG, grid, step)
        with atomic_write(self.path(step)) as temporary:
            Image.fromarray(grid).save(temporary, pnginfo=png_text(SHEET))

    def tiles(self, iteration: int) -> list[torch.Tensor]:
        """The rows of a written grid, read back: (B, 1, H, W) or (B, 3, H, W) in [0, 1] each."""
        with Image.open(self.path(iteration)) as picture:
            pixels = np.asarray(picture)
        rows = sum(name in self.batch for name in ("label", "image")) + 2 * ("annotation" in self.batch) + 1
        return grid_rows(pixels, rows, len(next(iter(self.batch.values()))))

    def _rows(self, network: nn.Module) -> list[torch.Tensor]:
        condition = self.batch["label"] if "label" in self.batch else self.batch["latent"]
        generated = sample(network, [condition], SEED)
        rows = [label_picture(self.batch["label"])] if "label" in self.batch else []
        rows.append(generated[:, :1].add(1).div(2))
        if "annotation" in self.batch:
            drawn = generated[:, 1:].argmax(dim=1, keepdim=True)
            rows += [class_picture(drawn), class_picture(self.batch["annotation"])]
        if "image" in self.batch:
            rows.append(self.batch["image"].float().cpu().add(1).div(2))
        return rows


def sample(network: nn.Module, inputs: Sequence[torch.Tensor], seed: int) -> torch.Tensor:
    """The network's images for ``inputs``, float32 on the CPU; modes and random states stay."""
    device = next(network.parameters()).device
    with evaluating(network), preserved_rng(seed), torch.inference_mode():
        return network(*(entry.to(device) for entry in inputs)).float().cpu()


def image_grid(rows: Sequence[torch.Tensor]) -> np.ndarray:
    """Rows of pictures as one, with white gaps between them.

    Args:
        rows: (B, C, H, W) each, in [0, 1] (clipped): colours where C is 3, else the first channel counts.
    Returns:
        uint8 (H', W'), or (H', W', 3) where any row has colours.
    """
    shown = [row if row.shape[1] == COLOURS else row[:, :1] for row in rows]
    channels = max(row.shape[1] for row in shown)
    stack = torch.stack([row.expand(-1, channels, -1, -1) for row in shown]).clamp(0, 1)  # (R, B, C, H, W)
    padded = nn.functional.pad(stack, (0, GAP, 0, GAP), value=1.0)  # (R, B, C, H + GAP, W + GAP)
    count, columns, _, height, width = padded.shape
    picture = padded.permute(0, 3, 1, 4, 2).reshape(count * height, columns * width, channels)  # (H', W', C)
    pixels = picture[:-GAP, :-GAP].mul(255).round().to(torch.uint8).numpy()
    return pixels if channels == COLOURS else pixels[..., 0]


def grid_rows(picture: np.ndarray, rows: int, columns: int) -> list[torch.Tensor]:
    """The inverse of `image_grid`: ``rows`` times (columns, C, H, W) in [0, 1]."""
    pixels = np.pad(np.atleast_3d(picture), ((0, GAP), (0, GAP), (0, 0)))
    height, width, channels = pixels.shape
    tiles = pixels.reshape(rows, height // rows, columns, width // columns, channels).transpose(0, 2, 4, 1, 3)
    return list(torch.from_numpy(tiles[..., :-GAP, :-GAP].copy()).float() / 255)  # (R, B, C, H, W)
