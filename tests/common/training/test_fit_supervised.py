"""Trainings in memory: every visit its own draw, first weights from seed and name."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from common.training.fit_supervised import Repeated, seeded


def make() -> nn.Linear:
    return nn.Linear(3, 2)


class Draws:
    """Items that are the draws themselves."""

    def __getitem__(self, visit: Any) -> Any:
        return visit


def test_passes_are_permuted_and_augmented_anew() -> None:
    visits = [Repeated(Draws(), [5], 12, seed=0)[k] for k in range(12)]
    assert sorted(v.index for v in visits[:5]) == sorted(v.index for v in visits[5:10]) == list(range(5))
    assert [v.epoch for v in visits] == [0] * 5 + [1] * 5 + [2] * 2
    assert [v.index for v in visits[:5]] != [v.index for v in visits[5:10]]


def test_every_batch_holds_equal_shares_of_parts_of_unequal_size() -> None:
    """2 real items and 10 synthetic ones: without shares 5 of 6 visits would be synthetic."""
    visits = [Repeated(Draws(), [2, 10], 24, seed=0)[k] for k in range(24)]
    real = [visit for visit in visits if visit.index < 2]
    assert [visit.index < 2 for visit in visits] == [True, False] * 12
    assert [visit.epoch for visit in real] == [k // 2 for k in range(12)]
    assert sorted(visit.index for visit in visits[1:20:2]) == list(range(2, 12))


def test_the_first_weights_follow_from_seed_and_name() -> None:
    state = torch.get_rng_state()
    weights = [seeded(make, seed, name).weight for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[3])
