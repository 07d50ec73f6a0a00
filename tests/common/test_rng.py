from __future__ import annotations

import numpy as np

from common.rng import make_rng


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
