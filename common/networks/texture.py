"""Noise beside a condition, for generators whose input is flat: drawn, or (older models) always the same.

A mask or label map is flat almost everywhere, and convolutions can draw no vessels from what is flat. Noise
that is always the same would draw the same vessels into every patient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class DrawnNoise(nn.Module):
    """Adds channels of N(0, 1) noise that differs from condition to condition.

    (B, C, H, W) -> (B, C + channels, H, W). Noise that is given is taken. Without any it is drawn from
    torch's generator in training, as dropout is. In evaluation it follows from the condition's content: the
    ``bank``, a map of noise that is kept with the weights, is shifted (round the border) by rows and columns
    that a sum over the condition's pixels decides. Equal conditions then have equal noise, others another,
    and the network stays a function of its condition that TorchScript and ONNX can hold. Beyond ``size``
    pixels that noise repeats.

    The noise that comes in is white; its channels are laid out at several scales, by turns 1, 2, 8 and 32
    pixels: fine ones for vessels, coarse ones for what else differs from patient to patient, such as the
    outline of the body, which a mask does not tell and a convolution can hardly read from white noise.

    Args:
        channels: of noise.
        size: side of the bank.
        seed: of the bank.
    """

    def __init__(self, channels: int, size: int = 256, seed: int = 0) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.sides = [(1, 2, 8, 32)[channel % 4] for channel in range(channels)]
        self.levels = 256  # steps of a condition, between two whole numbers, that its noise depends on
        self.factor, self.modulus = 1103515245, 2147483647  # of a multiplicative congruential generator
        self.prime = 65521
        bank = torch.randn(channels, size, size, generator=torch.Generator().manual_seed(seed))
        self.bank = nn.Parameter(bank, requires_grad=False)

    def forward(self, x: Tensor, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """What the network sees (B, C, H, W), the condition (B, K, H, W), white noise (B, channels, H, W)."""
        return torch.cat([x, self.scaled(self.white(condition, noise).to(x.dtype))], dim=1)

    def white(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """The noise that is given, or else drawn or that of the condition: (B, channels, H, W)."""
        if noise is not None:
            return noise
        if self.training:
            shape = [condition.shape[0], self.channels, condition.shape[2], condition.shape[3]]
            return torch.randn(shape, dtype=condition.dtype, device=condition.device)
        return self.of_condition(condition)

    def scaled(self, noise: Tensor) -> Tensor:
        """White noise (B, channels, H, W) at the channels' scales, of deviation about 1 all the same."""
        height, width = noise.shape[2], noise.shape[3]
        parts = []
        for channel, side in enumerate(self.sides):
            part = noise[:, channel : channel + 1]
            if side > 1:  # fewer pixels drawn larger; a mean of neighbours has 2/3 of the deviation
                part = part[:, :, : max(2, height // side), : max(2, width // side)]
                part = 1.5 * interpolate(part, size=[height, width], mode="bilinear", align_corners=False)
            parts.append(part)
        return torch.cat(parts, dim=1)

    def of_condition(self, condition: Tensor) -> Tensor:
        """The white noise that belongs to conditions (B, K, H, W): (B, channels, H, W)."""
        height, width, device = condition.shape[2], condition.shape[3], condition.device
        values = (condition.float() * self.levels).round().to(torch.int64).flatten(1)  # (B, K H W)
        places = torch.arange(1, values.shape[1] + 1, device=device)
        weights = places * self.factor % self.modulus
        mixed = (values * weights).sum(dim=1) % self.modulus  # of integers: exact in any order, (B,)
        row = mixed % self.size
        column = mixed % self.prime % self.size  # no division: ONNX rounds it to float32
        rows = (torch.arange(height, device=device) + row.unsqueeze(1)) % self.size  # (B, H)
        columns = (torch.arange(width, device=device) + column.unsqueeze(1)) % self.size  # (B, W)
        pixels = rows.unsqueeze(2) * self.size + columns.unsqueeze(1)  # (B, H, W)
        taken = self.bank.flatten(1).index_select(1, pixels.flatten())  # (channels, B H W)
        return taken.reshape(self.channels, -1, height, width).transpose(0, 1)


class NoNoise(nn.Module):
    """In the place of `DrawnNoise` where there is none: noise that is given is ignored."""

    def forward(self, x: Tensor, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """x as it is."""
        return x

    def white(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """No channels: (B, 0, H, W)."""
        return condition[:, :0]


def drawn_noise(channels: int) -> DrawnNoise | NoNoise:
    """A `DrawnNoise` of so many channels, or nothing for 0."""
    return DrawnNoise(channels) if channels else NoNoise()


def noise_channels(network: nn.Module) -> int:
    """Channels of noise that a network takes beside its condition; 0 for none."""
    return max((part.channels for part in network.modules() if isinstance(part, DrawnNoise)), default=0)


class FixedTexture(nn.Module):
    """Adds channels of N(0, 1) noise that is always the same: drawn from its own seed, kept with the weights.

    (B, C, H, W) -> (B, C + channels, H, W); the map repeats beyond ``size`` pixels. Every picture has the
    same fine texture then: it is there for models that were trained with it.
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
