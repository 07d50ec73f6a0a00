from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from common.rng import make_rng, preserved_rng, restore_rng, rng_state


def test_numbers_depend_on_seed_and_keys_alone() -> None:
    first = make_rng(3, "augmentation", 1, 2).random(4)
    np.random.seed(9)
    make_rng(5, "other").random(100)
    assert (make_rng(3, "augmentation", 1, 2).random(4) == first).all()


def test_every_part_of_the_key_counts_and_so_does_their_order() -> None:
    keys = [(3, "a", 1, 2), (4, "a", 1, 2), (3, "b", 1, 2), (3, "a", 2, 1), (3, "a", 1), (3, "a", 1, 2, 1)]
    assert len({float(make_rng(*key).random()) for key in keys}) == len(keys)


def test_the_numbers_stay_the_same_from_version_to_version() -> None:
    """Published splits rest on them."""
    assert make_rng(0, "split", 0).permutation(5).tolist() == [3, 1, 4, 0, 2]


def draw() -> tuple[list[float], list[float], float, float]:
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)


def test_random_states_are_restored() -> None:
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = draw()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    with pytest.raises(KeyError), preserved_rng(5):
        draw()
        raise KeyError
    assert draw() == expected


def test_the_seed_makes_the_block_repeat() -> None:
    with preserved_rng(5):
        first = draw()
    with preserved_rng(5):
        assert draw() == first
    with preserved_rng(6):
        assert draw() != first


def test_state_survives_a_safe_load(tmp_path: Path) -> None:
    draw()
    torch.save(rng_state(), tmp_path / "rng.pt")
    expected = draw()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    restore_rng(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draw() == expected
