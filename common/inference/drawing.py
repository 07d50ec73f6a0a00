"""What a generator makes of noise, any amount of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.inference.numbering import BLOCK
from common.training.modes import evaluating


@torch.no_grad()
def draw_images(network: nn.Module, latents: Tensor, classes: Tensor | None = None) -> Tensor:
    """The network's images for latents (N, L) and, of conditional models, classes (N,): (N, 1, S, S).

    In evaluation mode, a block at a time, without gradients; the modes of the network stay as they were.
    """
    kinds = [latents] if classes is None else [latents, classes]
    with evaluating(network):
        blocks = [network(*block) for block in zip(*(kind.split(BLOCK) for kind in kinds), strict=True)]
    return torch.cat(blocks).float()
