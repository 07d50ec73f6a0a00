"""Random numbers: seeded generators that depend on their purpose alone, and the global random states."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


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


@contextmanager
def preserved_rng(seed: int | None = None) -> Iterator[None]:
    """Restores the random states of torch (CPU and CUDA), numpy and Python at the end.

    Args:
        seed: seeds all of them inside the block, so that the block repeats; None keeps them as they are.

    Example:
        >>> state = torch.get_rng_state()
        >>> with preserved_rng(seed=0):
        ...     first = torch.rand(2)
        >>> with preserved_rng(seed=0):
        ...     print(torch.equal(torch.rand(2), first))
        True
        >>> torch.equal(torch.get_rng_state(), state)
        True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng(devices=devices):
            if seed is not None:
                _seed_all(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def _seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def rng_state() -> dict[str, Any]:
    """Returns the random states of torch, CUDA, numpy and Python in types that ``weights_only`` loads."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Restores what `rng_state` returned; GPU states only if the number of GPUs is the same."""
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
