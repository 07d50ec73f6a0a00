from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.memorization import NearestTraining, nearest_training, save_nearest
from common.visualization import CAPTION, GAP, HEADER


def line(*places: float) -> torch.Tensor:
    return torch.tensor(places)[:, None]


def test_ranks_by_hand() -> None:
    training = line(0, 1, 3, 7, 15)  # nearest among themselves: 1, 1, 2, 4, 8
    found = nearest_training(line(15, 5.5, 11.5, 100), training)
    assert found.indices.tolist() == [4, 3, 4, 4]
    assert found.distances.tolist() == [0, 1.5, 3.5, 85]
    assert found.ranks.tolist() == pytest.approx([0, 2 / 5, 3 / 5, 1])
    assert found.usual == 2 and found.ratios().tolist() == [0, 0.75, 1.75, 42.5]
    assert found.copied().tolist() == [1, 0, 0, 0] and found.copied(0.5).tolist() == [1, 1, 0, 0]


def test_held_out_images_say_what_is_usual() -> None:
    """Slices of one patient lie close: among them a near copy passes for new."""
    training = line(0, 0.1, 10, 10.1, 20, 20.1)
    copies, held_out = line(0.3, 9.8), line(5, 15, 25)
    assert nearest_training(copies, training).ranks.tolist() == [1, 1]
    assert nearest_training(copies, training, held_out).ranks.tolist() == [0, 0]


def test_new_samples_rank_evenly_and_copies_low() -> None:
    numbers = np.random.default_rng(0)
    training, held_out, new = (torch.from_numpy(numbers.normal(size=(300, 6))).float() for _ in range(3))
    ranks = nearest_training(new, training, held_out).ranks
    assert float(ranks.mean()) == pytest.approx(0.5, abs=0.06)
    copies = training[:50] + 0.01 * new[:50]
    found = nearest_training(copies, training, held_out)
    share = found.share(Resamples(resample_counts(None, 50, 50, numbers)))
    assert share.mean == 1 and share.n == 50 and found.indices.tolist() == list(range(50))


def test_the_picture_shows_samples_beside_their_nearest(tmp_path: Path) -> None:
    samples = torch.tensor([-1.0, 0.0]).view(2, 1, 1, 1).expand(2, 1, 32, 40)
    training = torch.tensor([1.0, -0.5, 0.5]).view(3, 1, 1, 1).expand(3, 1, 32, 40)
    ranks = torch.zeros(2).double()
    found = {
        "features": NearestTraining(torch.tensor([2, 0]), torch.ones(2).double(), ranks, 2.0),
        "pixels": NearestTraining(torch.tensor([1, 1]), torch.ones(2).double(), ranks, 0.0),
    }
    save_nearest(tmp_path / "nearest.png", samples, training, found)
    with Image.open(tmp_path / "nearest.png") as picture:
        sheet = np.asarray(picture)
    rows = [HEADER + row * (128 + CAPTION) + 5 for row in (0, 1)]  # enlarged four times
    columns = [GAP + column * (160 + GAP) + 5 for column in range(3)]
    assert [[int(sheet[row, column]) for column in columns] for row in rows] == [[0, 191, 64], [128, 255, 64]]
