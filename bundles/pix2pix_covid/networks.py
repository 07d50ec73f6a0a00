"""The generator of pix2pix_covid: Isola's U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from common.networks.blocks import (
    added_noise,
    check_decoder_noise,
    make_drawn_noise,
    make_fixed_texture,
    norm_layer,
    upsampling_layer,
)
from common.networks.generators import SpadeGenerator

__all__ = ["SpadeGenerator", "UnetGenerator"]  # saved models name them here


class UnetGenerator(nn.Module):
    """Encoder-decoder with skips (Isola et al. 2017, "U-Net"; paper A, section 2): lesion mask to CT slice.

    (B, in_channels, S, S) in {0, 1} -> (B, out_channels, S, S) in [-1, 1], S a multiple of ``2 ** levels``.
    With 8 levels and ngf 64 it is the paper's 256 x 256 net of 54.4 M parameters.

    Args:
        levels: halvings between input and bottleneck.
        ngf: width of the first level; it doubles up to ``8 * ngf``.
        dropout: probability in the three innermost decoder levels that are not outermost; the only noise.
        noise_at_inference: keep that dropout on in eval mode, as Isola et al. do, for varied samples.
        upsample: "transposed" convolution as published, or "resize" (nearest, then convolution), which
            leaves no checkerboard (Odena et al. 2016).
        norm: see `common.networks.blocks.norm_layer`. Isola et al. normalise by the statistics of the image
            that is drawn: at batch 1 that is ``instance``. ``batch`` draws with running averages instead.
        noise: channels of noise that the net sees beside the mask (`common.networks.blocks.DrawnNoise`): it
            makes fine texture of it, another in every picture; 0 for none, as published. A mask is flat
            almost everywhere, and convolutions can draw no vessels from what is flat.
        texture: channels of a fixed noise map instead, as older models have it: the same vessels in all.
        decoder_noise: add the noise after each decoder level but the outermost, too, each channel as strongly
            as it learns to (Karras et al. 2019, "noise inputs"); needs ``noise``.
    Raises:
        UserError: ``decoder_noise`` without ``noise``.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        levels: int = 8,
        ngf: int = 64,
        dropout: float = 0.5,
        noise_at_inference: bool = False,
        upsample: str = "transposed",
        norm: str = "batch",
        texture: int = 0,
        noise: int = 0,
        decoder_noise: bool = False,
    ) -> None:
        super().__init__()
        check_decoder_noise(decoder_noise, noise)
        self.texture, self.noise = make_fixed_texture(texture), make_drawn_noise(noise)
        widths = [ngf * min(2**level, 8) for level in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            source = in_channels + texture + noise if level == 0 else widths[level - 1]
            plain = level in (0, levels - 1)  # the picture's layer, and where one pixel may be left
            self.down.append(Down(source, width, "none" if plain else norm, activate=level > 0))
        for level in reversed(range(levels)):
            source = widths[level] * (1 if level == levels - 1 else 2)
            target = out_channels if level == 0 else widths[level - 1]
            inner = max(1, levels - 4) <= level < levels - 1
            probability = dropout if inner else 0.0
            name = "none" if level == 0 else norm
            channel = (level - 1) % noise if decoder_noise and level else -1
            self.up.append(Up(source, target, name, probability, noise_at_inference, upsample, channel))

    def forward(self, mask: Tensor, noise: Tensor | None = None) -> Tensor:
        """Mask (B, in_channels, S, S) in {0, 1} -> image (B, out_channels, S, S) in [-1, 1].

        ``noise`` is N(0, 1), (B, C, S, S); left out, the network has its own.
        """
        skips = []
        drawn = self.noise.white(mask, noise)  # (B, noise, S, S)
        x = self.noise(self.texture(mask * 2 - 1), mask, drawn)  # (B, in_channels + texture + noise, S, S)
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()  # the bottleneck's own output is no skip
        for level, up in enumerate(self.up):  # TorchScript iterates over modules, but not over slices of them
            x = up(x if level == 0 else torch.cat([x, skips.pop()], dim=1), drawn)  # (B, 2 C, h, w)
        return torch.tanh(x)


class Down(nn.Module):
    """LeakyReLU, 4 x 4 convolution of stride 2, norm: (B, C, h, w) -> (B, D, h/2, w/2)."""

    def __init__(self, source: int, target: int, norm: str, activate: bool) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.2) if activate else nn.Identity()
        self.conv = nn.Conv2d(source, target, 4, stride=2, padding=1, bias=norm == "none")
        self.norm = norm_layer(norm, target)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h/2, w/2)."""
        return self.norm(self.conv(self.activation(x)))


class Up(nn.Module):
    """ReLU, upsampling by 2, norm, noise, dropout: (B, C, h, w) -> (B, D, 2h, 2w).

    Args:
        channel: of the noise, that is added; -1 for none.
    """

    def __init__(
        self,
        source: int,
        target: int,
        norm: str,
        probability: float,
        always: bool,
        upsample: str,
        channel: int = -1,
    ) -> None:
        super().__init__()
        self.conv = upsampling_layer(upsample, source, target, norm == "none")
        self.norm = norm_layer(norm, target)
        self.probability, self.always, self.channel = probability, always, channel
        self.grain = added_noise(target, channel >= 0)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, C, h, w), white noise (B, K, S, S) -> (B, D, 2h, 2w)."""
        x = self.norm(self.conv(torch.relu(x)))
        x = self.grain(x, noise[:, self.channel : self.channel + 1])
        if self.probability > 0:
            x = dropout(x, self.probability, self.training or self.always)
        return x
