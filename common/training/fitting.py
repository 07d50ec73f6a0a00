"""Whether the networks take images of a size, asked before a run begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from common.errors import UserError
from common.training.modes import evaluating, preserved_rng


def check_fit(
    generator: nn.Module,
    discriminator: nn.Module,
    image_size: int,
    inputs: Sequence[str] = ("label",),
    condition: str | None = "label",
    latent: int = 0,
) -> None:
    """Passes one empty sample through both networks; random states and modes stay.

    Args:
        image_size: S.
        inputs: what the generator takes: ``label``, an empty mask (1, 1, S, S), ``latent`` (1, latent) or
            ``class``, the first one (1,).
        condition: what the discriminator takes beside the image; None for nothing.
        latent: values of a latent.
    Raises:
        UserError: a network refuses the size, or gives back images of another.
    """
    device = next(generator.parameters()).device
    mask = torch.zeros(1, 1, image_size, image_size, device=device)
    first_class = torch.zeros(1, dtype=torch.int64, device=device)
    batch = {"label": mask, "latent": torch.zeros(1, latent, device=device), "class": first_class}
    try:
        with evaluating(generator, discriminator), preserved_rng(0), torch.inference_mode():
            image = generator(*(batch[name] for name in inputs))
            if image.shape[-2:] != mask.shape[-2:]:
                raise ValueError(f"images of {tuple(image.shape[-2:])}")
            discriminator(image, None if condition is None else batch[condition])
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"image_size {image_size} does not fit the networks ({reason}); take a multiple of 2 to the "
            "power of the generator's levels, or change network_def and discriminator_def"
        ) from error
