"""A small BigGAN (Brock et al. 2019): residual blocks, self-attention, conditional batch norm."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from bundles.lung_two_stage.generation.networks import EMBEDDING, SMALLEST, doublings
from common.networks.blocks import class_embedding, class_projection
from common.networks.discriminators import DiscriminatorOutput

ATTENDED = 16
"""Side of the map with self-attention; half of the image's side for smaller images."""


class SelfAttention(nn.Module):
    """Self-attention (Zhang et al. 2019, section 3): (B, C, h, w) -> (B, C, h, w).

    The result is added with a learned weight, initially 0.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key = (spectral_norm(nn.Conv2d(channels, inner, 1)) for _ in range(2))
        self.value = spectral_norm(nn.Conv2d(channels, channels, 1))
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        query, key, value = (
            layer(features).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )  # (B, h w, C') each
        attended = torch.softmax(query @ key.transpose(1, 2), dim=2) @ value  # (B, h w, C)
        return features + self.weight * attended.transpose(1, 2).reshape(features.shape)


class ConditionalNorm(nn.Module):
    """BatchNorm whose scale and shift are linear in a vector of latent and class (Brock et al. 2019)."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = (nn.Linear(condition, channels, bias=False) for _ in range(2))
        for layer in (self.scale, self.shift):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(B, C, h, w) and (B, condition) -> (B, C, h, w)."""
        scale, shift = (layer(condition)[:, :, None, None] for layer in (self.scale, self.shift))
        return self.norm(features) * (1 + scale) + shift


class GrowingBlock(nn.Module):
    """A residual block that doubles the map: (B, C, h, w) -> (B, D, 2h, 2w)."""

    def __init__(self, source: int, target: int, condition: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(width, condition) for width in (source, target))
        self.first, self.second = (
            spectral_norm(nn.Conv2d(width, target, 3, padding=1)) for width in (source, target)
        )
        self.beside = spectral_norm(nn.Conv2d(source, target, 1))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """(B, C, h, w) and (B, condition) -> (B, D, 2h, 2w)."""
        x = functional.interpolate(functional.relu(self.norms[0](features, condition)), scale_factor=2)
        x = self.second(functional.relu(self.norms[1](self.first(x), condition)))
        beside: Tensor = self.beside(functional.interpolate(features, scale_factor=2))
        return x + beside


class ShrinkingBlock(nn.Module):
    """A residual block that halves the map: (B, C, h, w) -> (B, D, h/2, w/2)."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.first, self.second = (
            spectral_norm(nn.Conv2d(width, target, 3, padding=1)) for width in (source, target)
        )
        self.beside = spectral_norm(nn.Conv2d(source, target, 1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h/2, w/2)."""
        x = self.second(functional.relu(self.first(functional.relu(features))))
        return functional.avg_pool2d(x + self.beside(features), 2)


class BigGanGenerator(nn.Module):
    """Latents (B, latent) and, with classes, class indices (B,) -> images (B, channels, S, S) in [-1, 1].

    Latent and class embedding condition every norm; without classes the latent does (Chen et al. 2019).

    Args:
        image_size: S, a power of 2 from 16 up.
        latent: size of a latent.
        width: channels of the last block; each smaller map has twice as many.
        channels: of the image.
        classes: number of classes; 0 for none.
    Raises:
        UserError: an unknown size.
    """

    def __init__(
        self, image_size: int = 32, latent: int = 64, width: int = 32, channels: int = 2, classes: int = 0
    ) -> None:
        super().__init__()
        levels = doublings(image_size)
        widths = [width * 2 ** (levels - level) for level in range(levels + 1)]
        self.latent, self.classes = latent, classes
        self.embedding = class_embedding(classes, EMBEDDING)
        condition = latent + (EMBEDDING if classes else 0)
        self.first = spectral_norm(nn.Linear(condition, widths[0] * SMALLEST**2))
        self.blocks = nn.ModuleList(GrowingBlock(*pair, condition) for pair in pairwise(widths))
        self.attended = attended_level(levels)
        self.attention = SelfAttention(widths[self.attended])
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, with classes, class indices (B,) -> (B, channels, S, S)."""
        vector = latent
        if condition is not None:
            vector = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)
        x = self.first(vector).unflatten(1, (-1, SMALLEST, SMALLEST))
        for level, block in enumerate(self.blocks, 1):
            x = block(x, vector)
            if level == self.attended:
                x = self.attention(x)
        return torch.tanh(self.last(x).float())


class BigGanDiscriminator(nn.Module):
    """Images (B, channels, S, S) and, with classes, indices (B,) -> logits (B, 1); the class by projection.

    Args:
        image_size, width, channels, classes: see `BigGanGenerator`.
    Raises:
        UserError: an unknown size.
    """

    def __init__(self, image_size: int = 32, width: int = 32, channels: int = 2, classes: int = 0) -> None:
        super().__init__()
        levels = doublings(image_size)
        widths = [width * 2**level for level in range(levels + 1)]
        self.first = spectral_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.blocks = nn.ModuleList(ShrinkingBlock(*pair) for pair in pairwise(widths))
        self.attended = levels - attended_level(levels)
        self.attention = SelfAttention(widths[self.attended])
        self.last = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = class_projection(classes, widths[-1])

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """(B, channels, S, S) and (B,) -> (B, 1)."""
        features, x = [], self.first(image)
        for level, block in enumerate(self.blocks, 1):
            x = block(x)
            if level == self.attended:
                x = self.attention(x)
            features.append(x)
        pooled = functional.relu(x).sum((2, 3))  # (B, C)
        logits = self.last(pooled)
        if condition is not None:
            logits = logits + (self.projection(condition) * pooled).sum(1, keepdim=True)
        return DiscriminatorOutput([logits], [features])


def attended_level(levels: int) -> int:
    """Doublings from 4 x 4 to the map with self-attention."""
    return min(2, levels - 1)
