from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image
from torch import nn

from common.handlers.images import ImageGrid
from common.handlers.progression import Progression
from common.handlers.scalars import ScalarLog
from common.metrics.colours import colour
from common.metrics.sheet import CAPTION, GAP, HEADER, LEGEND

TILE = 160


class Level(nn.Module):
    """Its level everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(-1.0))

    def forward(self, label: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(label[:, :1]) + self.level


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    label = torch.zeros(2, 1, 16, 16)
    label[0, 0, 8:] = 1
    label[1, 0, 8:] = 2
    return {"label": label, "image": torch.tensor([0.2, 0.6]).view(2, 1, 1, 1).expand(2, 1, 16, 16)}


def trained(
    trainer: Any, logs: Any, folder: Path, batch: Any, iterations: int = 12, start: int = 0, **more: Any
) -> None:
    """A run whose generator gets brighter by 0.1 an iteration: at iteration n its level is n / 10 - 1."""
    log = ScalarLog(folder)
    images = ImageGrid(log, batch, folder / "samples", interval=0, iterations=[0, 3, 8, 50])
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
    tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any
) -> None:
    trained(trainer, plain_losses, tmp_path, batch, structures=["LV", "Ao"])
    picture = np.array(Image.open(tmp_path / "progression.png"))
    assert picture.shape == (HEADER + 2 * (TILE + CAPTION) + GAP + LEGEND, 6 * (TILE + GAP) + GAP, 3)
    grey = [[round(255 * (n / 10) / 2)] * 3 for n in (0, 3, 8, 12)]
    assert levels(picture, 0) == [list(colour(1)), *grey, [153] * 3]
    assert levels(picture, 1) == [list(colour(2)), *grey, [204] * 3]


def test_a_killed_and_resumed_run_makes_the_same_picture(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any
) -> None:
    trained(trainer, plain_losses, tmp_path / "whole", batch)
    trained(trainer, plain_losses, tmp_path / "parts", batch, iterations=8)
    assert (tmp_path / "parts" / "progression.png").is_file()
    trained(trainer, plain_losses, tmp_path / "parts", batch, start=4)  # what followed iteration 4 was lost
    whole, parts = (tmp_path / name / "progression.png" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    names = [sorted(path.name for path in (place.parent / "samples").iterdir()) for place in (whole, parts)]
    assert names[0] == names[1]


def test_masks_stay_grey_and_a_lost_file_has_no_column(
    tmp_path: Path, trainer: Any, plain_losses: Any, batch: Any
) -> None:
    batch["label"].clamp_(max=1)
    trained(trainer, plain_losses, tmp_path, batch, iterations=8)
    (tmp_path / "samples" / "iteration_000003.png").unlink()
    trained(trainer, plain_losses, tmp_path, batch, start=4)
    picture = np.array(Image.open(tmp_path / "progression.png"))
    assert levels(picture, 1) == [255, 0, 102, 153, 204]


def test_unconditional_samples_are_iterations_only(tmp_path: Path, trainer: Any, plain_losses: Any) -> None:
    trained(trainer, plain_losses, tmp_path, {"latent": torch.zeros(3, 1, 16, 16)}, iterations=4)
    picture = np.array(Image.open(tmp_path / "progression.png"))
    assert [levels(picture, row) for row in range(3)] == [[0, 38, 51]] * 3
