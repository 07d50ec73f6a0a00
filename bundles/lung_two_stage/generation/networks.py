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
from common.networks.texture import DrawnNoise


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
        grain: add noise of learned strength after every doubling (Karras et al. 2019, section 3.2): what is
            chance in a CT, its grain, has not to be drawn from the latent then.
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
        grain: bool = False,
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
        noises = (LayerNoise(widths[n], seed=n) for n in range(1, levels + 1)) if grain else ()
        self.grain = nn.ModuleList(noises)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, where there are classes, their indices (B,) -> (B, channels, S, S)."""
        x = latent
        if condition is not None:
            x = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)  # (B, latent + 16)
        x = x[:, :, None, None]
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if 0 < place <= len(self.grain):
                x = self.grain[place - 1](x, latent)
        return torch.tanh(x.float())

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """What a state_dict of such a network says of its sizes, for messages."""
        classes = len(state["embedding.table"]) if "embedding.table" in state else 0
        levels = sum(name.startswith("layers.") and name.endswith(".1.running_mean") for name in state) - 1
        latent = len(state["layers.0.0.weight"]) - (EMBEDDING if classes else 0)
        return {"latent size": latent, "image size": SMALLEST * 2**levels, "number of classes": classes}


class LayerNoise(nn.Module):
    """Adds one map of noise to all channels, each with its own learned strength, 0 at first.

    (B, C, H, W) and the latents (B, L) -> (B, C, H, W). In training the noise is drawn anew; in evaluation it
    follows from the latent, see `common.networks.texture.DrawnNoise`: equal latents give equal images.

    Args:
        channels: C.
        seed: of the noise in evaluation; each layer needs its own.
        size: side of that noise.
    """

    def __init__(self, channels: int, seed: int, size: int = 128) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.noise = DrawnNoise(1, size, seed)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """(B, C, H, W) and (B, L) -> (B, C, H, W)."""
        count, height, width = x.shape[0], x.shape[2], x.shape[3]
        if self.training:
            noise = torch.randn(count, 1, height, width, dtype=x.dtype, device=x.device)
        else:
            pixels = height * width
            known = latent.repeat(1, -(-pixels // latent.shape[1]))[:, :pixels]
            noise = self.noise.of_condition(known.reshape(count, 1, height, width)).to(x.dtype)
        return x + self.strength.to(x.dtype) * noise


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
