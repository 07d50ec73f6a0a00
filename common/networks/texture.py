"""Noise that is always the same, for generators whose input is flat."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FixedTexture(nn.Module):
    """Adds channels of N(0, 1) noise that is always the same: drawn from its own seed, kept with the weights.

    (B, C, H, W) -> (B, C + channels, H, W); the map repeats beyond ``size`` pixels.
    """

    def __init__(self, channels: int, size: int = 256, seed: int = 0) -> None:
        super().__init__()
        noise = torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(seed))
        self.noise = nn.Parameter(noise, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + channels, H, W)."""
        count, height, width = x.shape[0], x.shape[2], x.shape[3]
        rows, columns = -(-height // self.noise.shape[2]), -(-width // self.noise.shape[3])
        tiled = self.noise.repeat(count, 1, rows, columns)[:, :, :height, :width]
        return torch.cat([x, tiled], dim=1)


def textured(channels: int) -> nn.Module:
    """A `FixedTexture` of so many channels, or nothing for 0."""
    return FixedTexture(channels) if channels else nn.Identity()
