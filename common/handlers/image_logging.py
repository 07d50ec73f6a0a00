"""Pictures of a fixed batch during training, side by side at the end, and galleries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from torch import Tensor, nn

from common.errors import UserError
from common.files import atomic_write
from common.handlers.engine import epoch_due, networks
from common.handlers.logging import TrainingLogger
from common.networks.state import evaluating
from common.provenance import SHEET, png_text
from common.rng import preserved_rng
from common.training.distributed import is_main
from common.training.optimisation import sampling_network
from common.visualization import class_picture, label_picture, sheet, tiled, unit_range

TAG = "samples"
GAP = 2  # pixels between the pictures of a grid
COLUMNS = 8
COLOURS = 3  # channels of a coloured picture
SEED = 0
SHOWN = ("label", "latent", "annotation", "image")


class ImageGrid:
    """Draws a fixed batch (rows: condition, generated, real) to TensorBoard and PNG files.

    The network is the moving average of the generator if there is one, in evaluation mode. Random states and
    modes are restored; every grid uses the same random numbers.

    When a run starts at iteration ``n``, it removes pictures of later iterations, which a killed run left.

    For a network with logits of a label map in the further channels, that map and the true one are two more
    rows before the real images.

    Args:
        log: the run's log.
        batch: ``label`` (B, C, H, W) or ``latent`` for the network, optionally real images ``image``
            (B, 1, H, W) in [-1, 1] and true class maps ``annotation`` (B, 1, H, W); the first 8 are drawn.
        folder: for ``iteration_000123.png``.
        network_name: the generator's name in ``engine.networks``.
        interval: epochs between two grids; 0 for none.
        iterations: further iterations to draw; 0 is the untrained network.
    Raises:
        UserError: ``iterations`` is no list.
    """

    def __init__(
        self,
        log: TrainingLogger,
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
        """Returns the file of an iteration's grid, whether it exists or not."""
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
        grid = image_grid(self._rows(sampling_network(networks(engine), self.network_name)))
        self.log.add_image(TAG, grid, step)
        with atomic_write(self.path(step)) as temporary:
            Image.fromarray(grid).save(temporary, pnginfo=png_text(SHEET))

    def tiles(self, iteration: int) -> list[torch.Tensor]:
        """Reads back the rows of a written grid: (B, 1, H, W) or (B, 3, H, W) in [0, 1] each."""
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
    """Returns the network's images for ``inputs``, float32 on the CPU; restores modes and random states."""
    device = next(network.parameters()).device
    with evaluating(network), preserved_rng(seed), torch.inference_mode():
        return network(*(entry.to(device) for entry in inputs)).float().cpu()


def image_grid(rows: Sequence[torch.Tensor]) -> np.ndarray:
    """Tiles rows of pictures with white gaps between them.

    Args:
        rows: (B, C, H, W) each, in [0, 1] (clipped): colours if C is 3, else the first channel counts.
    Returns:
        uint8 (H', W'), or (H', W', 3) if any row has colours.

    Example:
        >>> image_grid([torch.zeros(4, 1, 16, 16), torch.ones(4, 1, 16, 16)]).shape
        (34, 70)
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


class SampleGrid(ImageGrid):
    """Draws images of fixed noise in rows of 8, and real images below.

    Args:
        log: the run's log.
        batch: ``latent`` (B, L), ``class`` (B,) for conditional networks, and optionally real images
            ``image`` (N, 1, H, W) in [-1, 1] to compare with. All of them are drawn.
        folder, network_name, interval, iterations: as `common.handlers.image_logging.ImageGrid`.
    """

    def __init__(
        self,
        log: TrainingLogger,
        batch: Mapping[str, torch.Tensor],
        folder: str | Path,
        network_name: str = "G",
        interval: int = 1,
        iterations: Sequence[int] = (),
    ) -> None:
        super().__init__(log, {}, folder, network_name, interval, iterations)
        self.batch = dict(batch)

    def tiles(self, iteration: int) -> list[torch.Tensor]:
        """Reads back the rows of a written grid: (8, 1, H, W) in [0, 1] each; empty places are white."""
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
    """Splits (B, C, H, W) into rows of ``columns``; the last is filled up with white."""
    missing = -len(images) % columns
    return list(torch.cat([images, images.new_ones(missing, *images.shape[1:])]).split(columns))


CONDITION, REAL = "condition", "real"


class Progression:
    """Assembles the grids of an `ImageGrid` into one picture: a row per sample, a column per iteration.

    The columns are the condition, the grids' ``iterations`` so far, the last iteration at the end of the run,
    and the real image. They are read from the grids' files, so that a resumed run includes its earlier parts;
    an iteration without a file has no column.

    Args:
        images: the grids.
        path: of the PNG, usually ``OUTPUT_DIR/logs/progression.png``; rewritten at each of the iterations.
        structures: names of the classes of class maps, for the legend.
    """

    def __init__(self, images: ImageGrid, path: str | Path, structures: Sequence[str] = ()) -> None:
        self.images, self.path, self.structures = images, Path(path), list(structures)

    def attach(self, engine: Engine) -> None:
        """Attach after the grids."""
        engine.add_event_handler(Events.STARTED | Events.ITERATION_COMPLETED, self._write_when_due)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _write_when_due(self, engine: Engine) -> None:
        if engine.state.iteration in self.images.iterations and is_main():
            self._write(engine.state.iteration)

    def _finish(self, engine: Engine) -> None:
        if not is_main():
            return
        if not self.images.path(engine.state.iteration).is_file():
            self.images.show(engine)
        self._write(engine.state.iteration)

    def _write(self, last: int) -> None:
        passed = {step for step in self.images.iterations if step < last} | {last}
        steps = [step for step in sorted(passed) if self.images.path(step).is_file()]
        grids = [self.images.tiles(step) for step in steps]
        titles, columns = [f"iteration {step:,}" for step in steps], [grid[self._generated] for grid in grids]
        if "label" in self.images.batch:
            titles, columns = [CONDITION, *titles], [grids[-1][0], *columns]
        if "image" in self.images.batch:
            titles, columns = [*titles, REAL], [*columns, grids[-1][-1]]
        names = [f"sample {number + 1}" for number in range(len(columns[0]))]
        coloured = columns[0].shape[1] == COLOURS
        with atomic_write(self.path) as temporary:
            picture = sheet(tiled(columns), titles, names, self.structures if coloured else ())
            picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))

    @property
    def _generated(self) -> int:
        """The row of the generated images in a grid."""
        return 1 if "label" in self.images.batch else 0


SMALLEST = 96  # pixels; smaller images are enlarged by whole factors


def save_galleries(
    path: str | os.PathLike[str], galleries: Mapping[str, Tensor], columns: int = 6, note: str = ""
) -> None:
    """Writes grids of images side by side, like figures 4, 5 and 8 of Gubbi.

    Args:
        path: the PNG file, written atomically.
        galleries: images (N, 1, H, W) in [-1, 1] by title; shorter ones are filled up with white.
        columns: images in a row.
        note: a line below.
    """
    most = max(map(len, galleries.values()))
    grids = [_grid(images, columns, -(-most // columns)) for images in galleries.values()]
    factor = max(1, -(-SMALLEST // next(iter(galleries.values())).shape[-1]))
    tiles = np.stack(grids)[None, ..., None].repeat(factor, 2).repeat(factor, 3)  # (1, galleries, H', W', 1)
    with atomic_write(path) as temporary:
        sheet(tiles, list(galleries), [note]).save(temporary, format="PNG", pnginfo=png_text(SHEET))


def _grid(images: Tensor, columns: int, rows: int) -> np.ndarray:
    """(N, 1, H, W) -> (H', W') uint8 of ``rows`` rows."""
    whole = [row for row in in_rows(unit_range(images), columns) if len(row)]
    blank = whole[0].new_ones(whole[0].shape)
    return image_grid([*whole, *[blank] * (rows - len(whole))])
