"""Convolutional networks for crops and slices: the generator of most methods, and DCGAN's discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from bundles.lung_two_stage.generation.blocks import EMBEDDING, SMALLEST, doubling, doublings, halving
from common.networks.classes import class_embedding, class_projection
from common.networks.discriminators import Critique
from common.networks.norms import NONE


class ConvolutionalGenerator(nn.Module):
    """Noise to image: a 4 x 4 map that doubles up to the image (Radford et al. 2016).

    (B, latent) from N(0, I), and (B,) class indices where there are classes -> (B, channels, S, S) in
    [-1, 1]. BatchNorm and ReLU follow every layer but the last; a tanh comes last.

    Args:
        image_size: S, a power of 2 from 16 up.
        latent: values of the noise.
        width: channels of the map before the last layer; each smaller map has twice as many.
        channels: of the image; nodules have two: HU window and alpha.
        classes: number of classes; 0 for none. A class is 16 learned values beside the latent.
        upsample: ``resize`` or ``transposed``, see `common.networks.upsampling`.
    Raises:
        UserError: no such size or layer.
    """

    def __init__(
        self,
        image_size: int = 32,
        latent: int = 64,
        width: int = 32,
        channels: int = 2,
        classes: int = 0,
        upsample: str = "resize",
    ) -> None:
        super().__init__()
        levels = doublings(image_size)
        widths = [width * 2 ** (levels - level) for level in range(levels + 1)]
        self.latent, self.classes = latent, classes
        self.embedding = class_embedding(classes, EMBEDDING)
        source = latent + (EMBEDDING if classes else 0)
        first = nn.ConvTranspose2d(source, widths[0], SMALLEST, bias=False)
        self.layers = nn.Sequential(
            nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ReLU()),
            *(doubling(upsample, wide, narrow) for wide, narrow in pairwise(widths)),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, where there are classes, their indices (B,) -> (B, channels, S, S)."""
        x = latent
        if condition is not None:
            x = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)  # (B, latent + 16)
        return torch.tanh(self.layers(x[:, :, None, None]).float())

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """What a state_dict of such a network says of its sizes, for messages."""
        classes = len(state["embedding.table"]) if "embedding.table" in state else 0
        levels = sum(name.startswith("layers.") and name.endswith(".1.running_mean") for name in state) - 1
        latent = len(state["layers.0.0.weight"]) - (EMBEDDING if classes else 0)
        return {"latent size": latent, "image size": SMALLEST * 2**levels, "number of classes": classes}


class ConvolutionalDiscriminator(nn.Module):
    """Image to one logit: convolutions of stride 2 down to 4 x 4, and one over what is left.

    (B, channels, S, S) in [-1, 1] -> logits (B, 1). The class is judged by projection (Miyato and Koyama
    2018).

    Args:
        image_size: S, a power of 2 from 16 up.
        width: channels of the first layer; each smaller map has twice as many.
        channels: of the image.
        classes: number of classes; 0 for none.
        norm: of all layers but the first, see `common.networks.norms.norm_layer`. A gradient penalty needs
            one that does not tie the samples of a batch: any but ``batch``.
    Raises:
        UserError: no such size or norm.
    """

    def __init__(
        self,
        image_size: int = 32,
        width: int = 32,
        channels: int = 2,
        classes: int = 0,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        widths = [channels, *(width * 2**level for level in range(doublings(image_size)))]
        self.hidden = nn.ModuleList(
            halving(source, target, norm if level else NONE)
            for level, (source, target) in enumerate(pairwise(widths))
        )
        self.last = nn.Conv2d(widths[-1], 1, SMALLEST)
        self.projection = class_projection(classes, widths[-1])

    def forward(self, image: Tensor, condition: Tensor | None = None) -> Critique:
        """Images (B, channels, S, S) and, where there are classes, their indices (B,) -> logits (B, 1)."""
        features, x = [], image
        for layer in self.hidden:
            x = layer(x)
            features.append(x)
        logits = self.last(x).flatten(1)  # (B, 1)
        if condition is not None:
            logits = logits + (self.projection(condition) * x.mean((2, 3))).sum(1, keepdim=True)
        return Critique([logits], [features])
