"""Random numbers that depend on what they are for, not on who asks first."""

from __future__ import annotations

import zlib

import numpy as np


def make_rng(seed: int, *keys: int | str) -> np.random.Generator:
    """A numpy generator for (seed, keys): the same keys, the same numbers, in any process, worker or order.

    Args:
        seed: the run's seed.
        keys: what the numbers are for, e.g. ``("augmentation", epoch, index)``; CRC-32 stands for strings.
    """
    numbers = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    return np.random.default_rng([int(seed), *numbers])
