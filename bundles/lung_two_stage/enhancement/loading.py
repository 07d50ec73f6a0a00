"""A trained enhancer as a function, for the other stages."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from common.inference.models import load_weights, network_for
from common.networks.fast_resnet import fast
from common.networks.resnet_generator import ResnetGenerator

logger = logging.getLogger(__name__)


def load_enhancer(
    ckpt_path: str | os.PathLike[str], image_size: tuple[int, int]
) -> Callable[[Tensor], Tensor] | None:
    """The enhancer, (B, 1, H, W) in [-1, 1] to the same, on the CPU; None, said in one line, without a file.

    Raises:
        UserError: the file cannot be read or is another network's.
    """
    if not Path(ckpt_path).is_file():
        logger.info(f"{ckpt_path}: no enhancer yet, slices stay as they are")
        return None
    network = network_for(ckpt_path, ResnetGenerator(residual=True))
    load_weights(network, ckpt_path, "run training of train_enhancer.yaml")
    return fast(network.requires_grad_(False), image_size)
