"""Whether the networks take images of a size, asked before a run begins."""

from __future__ import annotations

import torch
from torch import nn

from common.errors import UserError
from common.training.modes import evaluating, preserved_rng


def check_fit(generator: nn.Module, discriminator: nn.Module, image_size: int) -> None:
    """Passes one empty mask (1, 1, S, S) through both networks; random states and modes stay.

    Raises:
        UserError: a network refuses the size, or gives back images of another.
    """
    device = next(generator.parameters()).device
    mask = torch.zeros(1, 1, image_size, image_size, device=device)
    try:
        with evaluating(generator, discriminator), preserved_rng(0), torch.inference_mode():
            image = generator(mask)
            if image.shape[-2:] != mask.shape[-2:]:
                raise ValueError(f"images of {tuple(image.shape[-2:])}")
            discriminator(image, mask)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"image_size {image_size} does not fit the networks ({reason}); take a multiple of 2 to the "
            "power of the generator's levels, or change network_def and discriminator_def"
        ) from error
