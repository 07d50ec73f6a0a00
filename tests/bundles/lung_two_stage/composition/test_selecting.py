"""The best of many, as a sort finds them."""

from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.composition.selecting import Farthest, farthest

KIND = np.dtype([("index", "<i8"), ("margin", "<f4")])


def brute_force(margins: np.ndarray, count: int) -> list[int]:
    """Sorted by margin, the largest first, then by place."""
    order = sorted(range(len(margins)), key=lambda place: (-margins[place], place))
    return sorted(order[:count])


@pytest.mark.parametrize("count", [0, 1, 17, 99, 100, 120])
def test_ties_go_to_the_first(count: int) -> None:
    margins = np.random.default_rng(0).integers(0, 6, 100).astype(np.float32)
    assert farthest(margins, count).tolist() == brute_force(margins, count)


def test_piece_by_piece_is_all_at_once_in_bounded_memory() -> None:
    random = np.random.default_rng(1)
    everything = np.empty(5000, KIND)
    everything["index"], everything["margin"] = np.arange(5000), random.integers(0, 300, 5000) / 7
    everything["margin"][random.random(5000) < 0.2] = -np.inf
    best = Farthest(200, KIND)
    for start in range(0, 5000, 100):
        best.add(everything[start : start + 100])
        assert sum(map(len, best._pieces)) <= 2 * 200 + 100
    finite = everything["margin"]
    assert best.best()["index"].tolist() == brute_force(finite, 200)


def test_impossible_ones_are_never_kept() -> None:
    candidates = np.array([(0, -np.inf), (1, 2.0), (2, -np.inf)], KIND)
    best = Farthest(3, KIND)
    best.add(candidates)
    assert best.best()["index"].tolist() == [1]
