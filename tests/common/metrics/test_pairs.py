from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics import nearest_neighbors as pairs_module
from common.metrics.nearest_neighbors import PairBlocks, squared_distances


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "BLOCK", 8)


def vectors(count: int, seed: int, level: float = 40.0) -> Tensor:
    """Far from the origin: what float32 bears badly."""
    return torch.from_numpy(np.random.default_rng(seed).normal(level, 1, (count, 30))).float()


def test_blocks_cover_every_pair_of_two_sets_once() -> None:
    first, second = vectors(19, 0), vectors(11, 1)
    pairs, seen = PairBlocks(first, second), torch.zeros(19, 11)
    for block in pairs:
        seen[block.rows, block.columns] += 1
        expected = first[block.rows].double() @ second[block.columns].double().T
        assert pairs.originals(block).double().numpy() == pytest.approx(expected.numpy(), rel=1e-6)
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
        lower = pairs.lower(block).double()
        assert (lower <= inside).all() and (inside <= lower + pairs.slack(block)).all()
    assert pairs.exact(torch.tensor([5, 0]), torch.tensor([2, 10])).tolist() == [0, float(exact[0, 10])]


def test_a_vector_is_infinitely_far_from_itself() -> None:
    pairs = PairBlocks(vectors(9, 0))
    diagonal = torch.cat([pairs.lower(block).diagonal().clone() for block in pairs if block.diagonal])
    assert len(diagonal) == 9 and diagonal.isinf().all()


def test_squared_distance_by_hand() -> None:
    assert squared_distances(torch.tensor([[1.0, 5.0]]), torch.tensor([[4.0, 1.0]])).tolist() == [25]
