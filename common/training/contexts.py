"""Context managers that restore networks' modes and random states, and the random state as plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Puts ``networks`` in evaluation mode and restores the mode of every submodule at the end.

    ``monai.networks.eval_mode`` ends with ``network.train()``, which would also wake layers that were frozen
    in evaluation mode. It leaves gradients alone (``torch.inference_mode()``).

    Example:
        >>> network = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
        >>> with evaluating(network):
        ...     [module.training for module in network]
        [False, False]
        >>> [module.training for module in network]
        [False, True]
    """
    modules = [module for network in networks for module in network.modules()]
    modes = [module.training for module in modules]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


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
