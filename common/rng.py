"""Seeded random number generators that depend on their purpose, not on the order of the calls."""

from __future__ import annotations

import zlib

import numpy as np


def make_rng(seed: int, *keys: int | str) -> np.random.Generator:
    """Returns numpy's generator for (seed, keys): the same in any process, worker or order of calls.

    Args:
        seed: the run's seed.
        keys: what the numbers are for, e.g. ``("augmentation", epoch, index)``; strings enter as CRC-32.

    Example:
        >>> int(make_rng(0, "split").integers(100)) == int(make_rng(0, "split").integers(100))
        True
        >>> make_rng(0, "noise", 3).random() == make_rng(0, "noise", 4).random()
        False
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng([int(seed), *numbers])
