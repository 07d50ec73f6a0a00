"""Looking at a network without leaving traces: modes and random states are put back afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Puts ``networks`` in evaluation mode and restores the mode of *every* submodule at the end.

    ``monai.networks.eval_mode`` ends with ``network.train()``, which would also wake layers that were frozen
    in evaluation mode. Gradients are the caller's business (``torch.inference_mode()``).
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
        seed: seeds all of them inside the block, so that what happens in it repeats; None lets them run on.
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
