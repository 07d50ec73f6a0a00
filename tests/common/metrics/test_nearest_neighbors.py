from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import nearest_neighbors
from common.metrics.nearest_neighbors import (
    PairBlocks,
    find_nearest,
    find_nearest_squared,
    squared_distances,
)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "BLOCK", 16)


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


def vectors(count: int, seed: int, level: float = 40.0) -> Tensor:
    """Far from the origin: what float32 bears badly."""
    return torch.from_numpy(np.random.default_rng(seed).normal(level, 1, (count, 30))).float()


def test_blocks_cover_every_pair_of_two_sets_once() -> None:
    first, second = vectors(19, 0), vectors(11, 1)
    pairs, seen = PairBlocks(first, second), torch.zeros(19, 11)
    for block in pairs:
        seen[block.rows, block.columns] += 1
        expected = first[block.rows].double() @ second[block.columns].double().T
        assert pairs.products(block).double().numpy() == pytest.approx(expected.numpy(), rel=1e-6)
    assert (seen == 1).all()


def test_blocks_within_a_set_stand_for_their_mirror_images() -> None:
    pairs, seen = PairBlocks(vectors(19, 0)), torch.zeros(19, 19)
    for block in pairs:
        seen[block.rows, block.columns] += 1
        if block.mirrored:
            seen[block.columns, block.rows] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("outlier", [0.0, 1e4])
def test_bounds_hold_the_exact_distances(outlier: float) -> None:
    first, second = vectors(19, 0), vectors(11, 1)
    second[3] += outlier
    first[5] = second[2]
    exact = (first.double()[:, None] - second.double()).square().sum(2)  # (19, 11)
    pairs = PairBlocks(first, second)
    for block in pairs:
        inside = exact[block.rows, block.columns]
        lower = pairs.lower_bounds(block).double()
        assert (lower <= inside).all() and (inside <= lower + pairs.slack(block)).all()
    assert pairs.exact(torch.tensor([5, 0]), torch.tensor([2, 10])).tolist() == [0, float(exact[0, 10])]


def test_a_vector_is_infinitely_far_from_itself() -> None:
    pairs = PairBlocks(vectors(9, 0))
    diagonal = torch.cat([pairs.lower_bounds(block).diagonal().clone() for block in pairs if block.diagonal])
    assert len(diagonal) == 9 and diagonal.isinf().all()
