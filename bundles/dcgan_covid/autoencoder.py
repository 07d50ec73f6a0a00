"""The autoencoder of the latent explorer: CT slice to two or three values, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from common.errors import UserError

SHOWN = (2, 3)
"""Sizes of a latent that can be looked at."""
WIDTHS = (256, 128, 64, 32)
SLOPE = 0.2


class DenseAutoencoder(nn.Module):
    """Five dense layers down to a latent of two or three values, and five up again.

    (B, 1, S, S) in [-1, 1] -> the same, as well as so few values can say it. LeakyReLU follows every layer
    but the last ones; the latent has no activation, the image a tanh. At S = 128 and a latent of 3:

    =======  ===============================  ==========
    part     values from layer to layer       parameters
    =======  ===============================  ==========
    encoder  16 384, 256, 128, 64, 32, 3       4 237 891
    decoder  3, 32, 64, 128, 256, 16 384       4 254 272
    =======  ===============================  ==========

    8 492 163 in all at 128, 2 188 419 at 64. Nearly all lie between 256 values and the image. That width
    is for the decoder's sake: with 8-bit weights it takes 5 MB of a web page, where plain JavaScript runs
    through it in a few milliseconds.

    Args:
        image_size: S in pixels.
        latent: 2 or 3.
        widths: values behind each layer of the encoder but the last; the decoder mirrors them.
    Raises:
        UserError: another latent size.
    """

    def __init__(self, image_size: int = 128, latent: int = 3, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        if latent not in SHOWN:
            raise UserError(f"latent {latent} cannot be looked at; take 2 or 3")
        sizes = [image_size**2, *widths, latent]
        self.image_size, self.latent = image_size, latent
        self.encoder = dense_stack(sizes)
        self.decoder = dense_stack(sizes[::-1]).append(nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, 1, S, S) -> their reconstructions (B, 1, S, S) in [-1, 1]."""
        return self.decode(self.encode(image))

    def encode(self, image: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, latent), of any range."""
        return self.encoder(image.flatten(1))  # (B, 1, S, S) -> (B, S S)

    def decode(self, latent: Tensor) -> Tensor:
        """(B, latent) -> (B, 1, S, S)."""
        return self.decoder(latent).float().reshape(-1, 1, self.image_size, self.image_size)

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """What a state_dict of such a network says of its sizes, for messages."""
        first = state["encoder.0.weight"]  # (512, S S)
        deepest = state["decoder.0.weight"]  # (64, latent)
        return {"latent size": deepest.shape[1], "image size": math.isqrt(first.shape[1])}


def dense_stack(sizes: Sequence[int]) -> nn.Sequential:
    """Dense layers from ``sizes[0]`` values to ``sizes[-1]``, LeakyReLU between them: (B, n) -> (B, m)."""
    layers: list[nn.Module] = []
    for source, target in pairwise(sizes):
        layers += [nn.Linear(source, target), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])
