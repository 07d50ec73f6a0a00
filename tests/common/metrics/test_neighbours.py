from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import nearest_neighbors as pairs_module
from common.metrics.nearest_neighbors import find_nearest, find_nearest_squared, squared_distances


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "BLOCK", 16)


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
    """Of four owners in turn; where float32 sees no difference, float64 leaves them out, too."""
    vectors = torch.cat([normal(30, 0, spread, -100), normal(30, 1, spread, 100)])
    owners = torch.arange(60) % 4
    squared, indices = find_nearest_squared(vectors, None, 3, None, (owners, owners))
    apart = (vectors.double()[:, None] - vectors.double()).square().sum(2)
    apart[owners[:, None] == owners] = torch.inf
    assert torch.equal(squared, apart.sort(dim=1).values[:, :3])
    assert (owners[indices] != owners[:, None]).all()


def test_exact_where_float32_sees_no_difference() -> None:
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
