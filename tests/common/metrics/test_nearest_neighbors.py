from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.errors import UserError
from common.metrics import nearest_neighbors
from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.nearest_neighbors import (
    NearestTraining,
    find_nearest,
    nearest_training,
    save_nearest,
    squared_distance_rows,
    squared_distances,
)
from common.visualization import CAPTION, GAP, HEADER


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "ROWS", 16)


def normal(count: int, seed: int, spread: float = 1.0, level: float = 0.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(level, spread, (count, 12))).float()


def plain(first: Tensor, second: Tensor, k: int, same: bool = False) -> tuple[Tensor, Tensor]:
    """Every distance in float64, sorted."""
    distances = (first.double()[:, None] - second.double()).square().sum(2).sqrt()
    if same:
        distances.fill_diagonal_(torch.inf)
    values, order = distances.sort(dim=1)
    return values[:, :k], order[:, :k]


def test_by_hand() -> None:
    queries, references = torch.tensor([[0.0], [10.0]]), torch.tensor([[9.0], [2.0], [-1.0], [40.0]])
    distances, indices = find_nearest(queries, references, k=2)
    assert distances.tolist() == [[1, 2], [1, 8]] and indices.tolist() == [[2, 1], [0, 1]]
    distances, indices = find_nearest(references)
    assert distances.flatten().tolist() == [7, 3, 3, 31] and indices.flatten().tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("k", [1, 4])
def test_the_same_as_all_distances(k: int) -> None:
    first, second = normal(37, 0), normal(53, 1)
    for found, wanted in zip(find_nearest(first, second, k), plain(first, second, k), strict=True):
        assert torch.equal(found, wanted)
    for found, wanted in zip(find_nearest(first, None, k), plain(first, first, k, same=True), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("spread", [1.0, 1e-5])
def test_an_owner_s_own_do_not_count(spread: float) -> None:
    """Of four owners in turn, also where distances are computed from differences."""
    vectors = torch.cat([normal(30, 0, spread, -100), normal(30, 1, spread, 100)])
    owners = torch.arange(60) % 4
    distances, indices = find_nearest(vectors, None, 3, (owners, owners))
    apart = (vectors.double()[:, None] - vectors.double()).square().sum(2)
    apart[owners[:, None] == owners] = torch.inf
    assert torch.equal(distances, apart.sort(dim=1).values[:, :3].sqrt())
    assert (owners[indices] != owners[:, None]).all()


def test_exact_where_products_lose_the_difference() -> None:
    """Two tight clusters far from each other: centring does not help, rounding is larger than distances."""
    clusters = torch.cat([normal(30, 0, 1e-5, -100), normal(30, 1, 1e-5, 100)])
    assert clusters.unique(dim=0).shape[0] == 60
    distances, indices = find_nearest(clusters, None, 3)
    assert torch.equal(distances, plain(clusters, clusters, 3, same=True)[0])  # with ties, so in any order
    apart = squared_distances(clusters.repeat_interleave(3, 0), clusters[indices.flatten()])
    assert torch.equal(apart.sqrt(), distances.flatten())


def test_copies_are_at_distance_zero() -> None:
    distances, indices = find_nearest(normal(1, 0).repeat(40, 1), k=2)
    assert (distances == 0).all() and (indices != torch.arange(40)[:, None]).all()


def test_too_few_images_are_named() -> None:
    with pytest.raises(UserError, match="3 nearest images wanted, but there are 2"):
        find_nearest(normal(3, 0), k=3)


@pytest.mark.parametrize("outlier", [0.0, 1e4])
def test_rows_are_the_matrix_of_distances(outlier: float) -> None:
    """Far from the origin; a pair of equal vectors is exactly 0 apart, whatever the others are."""
    first, second = normal(39, 0, level=40), normal(31, 1, level=40)
    second[3] += outlier
    first[5] = second[2]
    exact = (first.double()[:, None] - second.double()).square().sum(2)  # (39, 31)
    rows, parts = zip(*squared_distance_rows(first, second), strict=True)
    assert [each.start for each in rows] == [0, 16, 32]
    assert torch.cat(parts).numpy() == pytest.approx(exact.numpy(), rel=1e-9)
    assert torch.cat(parts)[5, 2] == 0


def test_a_vector_is_infinitely_far_from_itself() -> None:
    squared = torch.cat([part for _, part in squared_distance_rows(normal(40, 0, level=40))])
    assert squared.isinf().tolist() == torch.eye(40, dtype=torch.bool).tolist()


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
