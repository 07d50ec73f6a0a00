from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from common.errors import UserError
from common.handlers.image_logging import (
    ImageGrid,
    Progression,
    SampleGrid,
    grid_rows,
    image_grid,
    label_picture,
    save_galleries,
)
from common.handlers.logging import TrainingLogger
from common.visualization import CAPTION, GAP, HEADER, LEGEND, colour


class Generator(nn.Module):
    """Gives its level everywhere, and takes a random number, in training more than in evaluation."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))
        self.dropout = nn.Dropout(0.5)

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        return self.dropout(torch.ones_like(label[:, :1])) * self.level


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    label = torch.zeros(3, 1, 4, 6)
    label[0, 0, 1, 2] = 1
    return {"label": label, "image": torch.full((3, 1, 4, 6), -1.0), "sample": torch.arange(3)}


def run(
    trainer: Any, logs: Any, batch: Any, folder: Path, networks: dict[str, nn.Module], **when: Any
) -> None:
    log = TrainingLogger(folder)
    engine = trainer(logs, [log, ImageGrid(log, batch, folder / "samples", **when)])
    engine.networks = networks
    engine.train(12)


def test_grids_at_chosen_iterations_and_epochs(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any
) -> None:
    run(trainer, plain_losses, batch, tmp_path, {"G": Generator(0.5)}, interval=2, iterations=[1, 6])
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == [f"iteration_{i:06d}.png" for i in (1, 6, 8)]
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [event.step for event in accumulator.Images("samples")] == [1, 6, 8]


def test_rows_are_mask_generated_real(tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any) -> None:
    networks: dict[str, nn.Module] = {"G": Generator(0.5), "G_ema": Generator(0.2)}
    run(trainer, plain_losses, batch, tmp_path, networks, interval=3)
    picture = np.array(Image.open(tmp_path / "samples" / "iteration_000012.png"))
    assert picture.shape == (3 * 4 + 2 * 2, 3 * 6 + 2 * 2)
    assert picture[:4, :6].sum() == 255 and picture[1, 2] == 255
    assert set(picture[6:10, 8:14].ravel()) == {153}  # (0.2 + 1) / 2 of 255: the moving average
    assert picture[12:, :6].sum() == 0


class PairGenerator(Generator):
    """A gray image, and logits of a map that has class 2 everywhere."""

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros_like(label).repeat(1, 3, 1, 1)
        logits[:, 2] = 5.0
        return torch.cat([super().forward(label), logits], dim=1)


def test_drawn_and_true_maps_stand_before_the_real_images(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any
) -> None:
    annotation = torch.ones(3, 1, 4, 6)
    networks: dict[str, nn.Module] = {"G": PairGenerator(0.2)}
    run(trainer, plain_losses, {**batch, "annotation": annotation}, tmp_path, networks, interval=3)
    path = tmp_path / "samples" / "iteration_000012.png"
    picture = np.array(Image.open(path))
    assert picture.shape == (5 * 4 + 4 * 2, 3 * 6 + 2 * 2, 3)
    assert set(picture[6:10, 8:14].ravel()) == {153}
    assert {tuple(pixel) for pixel in picture[12:16, :6].reshape(-1, 3)} == {colour(2)}
    assert {tuple(pixel) for pixel in picture[18:22, :6].reshape(-1, 3)} == {colour(1)}
    assert picture[24:, :6].sum() == 0
    grid = ImageGrid(TrainingLogger(tmp_path / "again"), {**batch, "annotation": annotation}, path.parent)
    assert len(grid.tiles(12)) == 5


def test_training_is_left_as_it_was(tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any) -> None:
    generator = Generator(0.5)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run(trainer, plain_losses, batch, tmp_path, {"G": generator}, interval=1)
    assert torch.equal(torch.rand(4), expected)
    assert generator.training and generator.dropout.training


def test_an_unconditional_generator_has_one_row(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    latent = {"latent": torch.zeros(2, 1, 4, 4)}
    run(trainer, plain_losses, latent, tmp_path, {"G": Generator(1.0)}, interval=3)
    picture = np.array(Image.open(tmp_path / "samples" / "iteration_000012.png"))
    assert picture.shape == (4, 10) and picture.min() == 255


def test_grid_values_and_gaps() -> None:
    grid = image_grid([torch.zeros(2, 1, 2, 3), torch.full((2, 1, 2, 3), 0.5)])
    assert grid.dtype == np.uint8 and grid.shape == (6, 8)
    assert (grid[:2, :3] == 0).all() and (grid[4:, 5:] == 128).all() and (grid[2:4] == 255).all()


def test_coloured_rows_make_a_coloured_grid_that_is_read_back() -> None:
    colours = torch.zeros(2, 3, 2, 3)
    colours[1, 2, 1, 0] = 1
    grey = torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 1, 2, 3)
    grid = image_grid([colours, grey])
    assert grid.shape == (6, 8, 3) and grid[1, 5].tolist() == [0, 0, 255] and grid[4, 0].tolist() == [51] * 3
    first, second = grid_rows(grid, 2, 2)
    assert torch.equal(first, colours) and torch.allclose(second, grey.expand(2, 3, 2, 3))
    (single,) = grid_rows(image_grid([grey]), 1, 2)
    assert single.shape == (2, 1, 2, 3) and torch.allclose(single, grey)


def test_class_maps_are_shown_in_colours(tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any) -> None:
    batch["label"][1, 0, 3, 4] = 2
    run(trainer, plain_losses, batch, tmp_path, {"G": Generator(0.5)}, interval=3)
    picture = np.array(Image.open(tmp_path / "samples" / "iteration_000012.png"))
    assert picture.shape == (16, 22, 3)
    assert tuple(picture[1, 2]) == colour(1) and tuple(picture[3, 8 + 4]) == colour(2)
    assert (picture[6:10] == picture[6:10, :, :1]).all()


def test_the_untrained_network_is_shown_and_later_pictures_of_a_killed_run_go(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any
) -> None:
    folder = tmp_path / "samples"
    for _ in range(2):  # the second run starts anew in the same folder
        run(trainer, plain_losses, batch, tmp_path, {"G": Generator(0.5)}, interval=0, iterations=[0, 5])
        assert sorted(path.name for path in folder.iterdir()) == [
            "iteration_000000.png",
            "iteration_000005.png",
        ]
        (folder / "iteration_000009.png").write_bytes(b"left over")
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [event.step for event in accumulator.Images("samples")] == [0, 5]
    log = TrainingLogger(tmp_path)
    images = ImageGrid(log, batch, folder, interval=0, iterations=[0, 5])
    engine = trainer(plain_losses, [log, images], start=4)
    engine.networks = {"G": Generator(-1.0)}
    before = (folder / "iteration_000000.png").read_bytes()
    engine.train(8)
    assert (folder / "iteration_000000.png").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir())[1:] == ["iteration_000005.png"]


def test_label_channels_show_as_levels() -> None:
    label = torch.zeros(1, 4, 1, 4)
    for channel in range(3):
        label[0, channel, 0, channel] = 1
    assert label_picture(label).flatten().tolist() == [0.25, 0.5, 0.75, 0.0]


@pytest.mark.parametrize("iterations", [5, "500"])
def test_a_number_in_place_of_a_list_is_refused(iterations: Any, batch: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"image_iterations {iterations}: give a list"):
        ImageGrid(TrainingLogger(tmp_path), batch, tmp_path, iterations=iterations)


class Levels(nn.Module):
    """An image of one gray: the latent's first value, and a tenth for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones(1))

    def forward(self, latent: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        level = latent[:, 0] if condition is None else latent[:, 0] + 0.1 * condition
        return self.unit * level[:, None, None, None].expand(-1, 1, 4, 4)


def run_samples(trainer: Any, logs: Any, folder: Path, batch: dict[str, torch.Tensor]) -> SampleGrid:
    log = TrainingLogger(folder)
    grid = SampleGrid(log, batch, folder / "samples", iterations=[8])
    engine = trainer(logs, [log, grid])
    engine.networks = {"G": Levels()}
    engine.train(8)
    return grid


def test_rows_of_noise_then_real_images(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    latent = torch.linspace(-1, 0.5, 16)[:, None]
    real = torch.full((3, 1, 4, 4), -1.0)
    grid = run_samples(trainer, plain_losses, tmp_path, {"latent": latent, "image": real})
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
    rows = run_samples(trainer, plain_losses, tmp_path, batch).tiles(8)
    assert len(rows) == 2
    assert abs(float(rows[1].mean() - rows[0].mean()) - 0.05) < 3e-3


TILE = 160


class Level(nn.Module):
    """Its level everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(-1.0))

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(label[:, :1]) + self.level


@pytest.fixture
def batch_progression() -> dict[str, torch.Tensor]:
    label = torch.zeros(2, 1, 16, 16)
    label[0, 0, 8:] = 1
    label[1, 0, 8:] = 2
    return {"label": label, "image": torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 1, 16, 16)}


def trained(
    trainer: Any,
    logs: Any,
    folder: Path,
    batch_progression: Any,
    iterations: int = 12,
    start: int = 0,
    **more: Any,
) -> None:
    """A run whose generator gets brighter by 0.1 an iteration: at iteration n its level is n / 10 - 1."""
    log = TrainingLogger(folder)
    images = ImageGrid(log, batch_progression, folder / "samples", interval=0, iterations=[0, 3, 8, 50])
    engine = trainer(logs, [], start)
    engine.networks = {"G": Level()}
    generator = engine.networks["G"]

    @engine.on(Events.ITERATION_COMPLETED)
    def brighten() -> None:
        generator.level.data.fill_(engine.state.iteration / 10 - 1)

    for handler in (log, images, Progression(images, folder / "progression.png", **more)):
        handler.attach(engine)
    engine.train(iterations)


def levels(picture: np.ndarray, row: int) -> list[Any]:
    """The tiles' lower left corners."""
    bottom = HEADER + row * (TILE + CAPTION) + TILE - 5
    columns = range(GAP, picture.shape[1] - GAP, TILE + GAP)
    return [picture[bottom, column + 5].tolist() for column in columns]


def test_a_sample_a_row_and_an_iteration_a_column(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch_progression: Any
) -> None:
    trained(trainer, plain_losses, tmp_path, batch_progression, structures=["LV", "Ao"])
    picture = np.array(Image.open(tmp_path / "progression.png"))
    assert picture.shape == (HEADER + 2 * (TILE + CAPTION) + GAP + LEGEND, 6 * (TILE + GAP) + GAP, 3)
    grey = [[round(255 * (n / 10) / 2)] * 3 for n in (0, 3, 8, 12)]
    assert levels(picture, 0) == [list(colour(1)), *grey, [153] * 3]
    assert levels(picture, 1) == [list(colour(2)), *grey, [204] * 3]


def test_a_killed_and_resumed_run_makes_the_same_picture(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch_progression: Any
) -> None:
    trained(trainer, plain_losses, tmp_path / "whole", batch_progression)
    trained(trainer, plain_losses, tmp_path / "parts", batch_progression, iterations=8)
    assert (tmp_path / "parts" / "progression.png").is_file()
    trained(
        trainer, plain_losses, tmp_path / "parts", batch_progression, start=4
    )  # what followed iteration 4 was lost
    whole, parts = (tmp_path / name / "progression.png" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    names = [sorted(path.name for path in (place.parent / "samples").iterdir()) for place in (whole, parts)]
    assert names[0] == names[1]


def test_masks_stay_grey_and_a_lost_file_has_no_column(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch_progression: Any
) -> None:
    batch_progression["label"].clamp_(max=1)
    trained(trainer, plain_losses, tmp_path, batch_progression, iterations=8)
    (tmp_path / "samples" / "iteration_000003.png").unlink()
    trained(trainer, plain_losses, tmp_path, batch_progression, start=4)
    picture = np.array(Image.open(tmp_path / "progression.png"))
    assert levels(picture, 1) == [255, 0, 102, 153, 204]


def test_unconditional_samples_are_iterations_only(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    trained(trainer, plain_losses, tmp_path, {"latent": torch.zeros(3, 1, 16, 16)}, iterations=4)
    picture = np.array(Image.open(tmp_path / "progression.png"))
    assert [levels(picture, row) for row in range(3)] == [[0, 38, 51]] * 3


def test_images_stand_in_rows_and_a_shorter_gallery_ends_in_white(tmp_path: Path) -> None:
    levels = torch.linspace(-1, 1, 5).view(5, 1, 1, 1).expand(5, 1, 48, 48)
    save_galleries(tmp_path / "g.png", {"real": levels, "generated": levels[:2]}, columns=2)
    with Image.open(tmp_path / "g.png") as picture:
        pixels = np.asarray(picture)
        assert picture.info["Description"].startswith("synthetic: a sheet with generated images")
    side = 2 * (48 + 2)  # enlarged twice, with a gap of two pixels
    gallery = 2 * side - 4 + GAP

    def tile(gallery_number: int, row: int, column: int) -> int:
        return int(pixels[HEADER + row * side + 9, GAP + gallery_number * gallery + column * side + 9])

    assert [tile(0, *divmod(number, 2)) for number in range(6)] == [0, 64, 128, 191, 255, 255]
    assert [tile(1, *divmod(number, 2)) for number in range(6)] == [0, 64, 255, 255, 255, 255]
