"""Networks of patchgan_cardiac: both published variants of the generator, one that translates contrast, and
the patch discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.networks.blocks import (
    NONE,
    ClassEncoding,
    added_noise,
    check_decoder_noise,
    make_drawn_noise,
    make_fixed_texture,
    norm_layer,
    upsampling_layer,
)
from common.networks.discriminators import DiscriminatorOutput

SLOPE = 0.2  # of the LeakyReLUs
LAYERS = 5  # of the discriminator


class HeartGenerator(nn.Module):
    """Encoder-decoder from whole-heart labels to a slice (Habijan and Galic, section III-B).

    Class indices (B, 1, S, S) in 0..classes -> image (B, 1, S, S) in [-1, 1]; further ``out_channels`` are
    logits. S is a multiple of ``2 ** levels``; 7 levels reduce 128 pixels to 1 and 256 to 2. There is no
    dropout: label and noise determine the image.

    Widths go ``width`` times 1, 2, 4, 8, 8, ... down and back up; the outermost step up goes to ``head``
    channels, from which a last convolution of stride 1 makes the image. Norms follow all other convolutions
    except the first and the innermost, where a single pixel may be left. Parameters with one input channel
    and 7 levels of width 64:

    ========================= ============ ============
    up                        skips        no skips
    ========================= ============ ============
    transposed (the paper)    41 837 905   30 688 593
    transposed_conv           55 799 057   44 649 745   (the published code: 44.6 M)
    resize                    30 247 249   23 975 761
    ========================= ============ ============

    Args:
        classes, encoding: classes and encoding of the label, see `common.networks.blocks`.
        out_channels: 1 for the image; more for additional logits.
        skips: skip connections, as in a U-Net.
        up: ``transposed`` convolution of 4 x 4 and stride 2; ``transposed_conv``, this and a convolution of
            4 x 4 and stride 1; ``resize``, nearest-neighbour upsampling and a convolution, without
            checkerboard artefacts.
        levels: number of downsampling (and upsampling) steps.
        width: channels of the outermost step down.
        head: channels before the last convolution; 0 for ``width / 8``, which meets the published number of
            parameters, or ``out_channels`` if that is more. With more channels the network learns the range
            of the image in fewer iterations, since an update moves each weight by at most the learning rate.
        noise: channels of noise beside the label (`common.networks.blocks.DrawnNoise`), from which the
            network makes fine texture, another in every picture; 0 as published.
        decoder_noise: add the noise after each step up but the outermost, too, each channel as strongly as it
            learns to (`common.networks.blocks.AddedNoise`); needs ``noise``.
        texture: channels of a fixed noise map instead, as older models have it: the same vessels in all.
        norm: see `common.networks.blocks.norm_layer`; the paper's is ``batch``.
    Raises:
        UserError: ``decoder_noise`` without ``noise``.

    Example:
        >>> network = HeartGenerator(levels=3, width=4)
        >>> network(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(
        self,
        classes: int = 7,
        encoding: str = "index",
        out_channels: int = 1,
        skips: bool = True,
        up: str = "transposed",
        levels: int = 7,
        width: int = 64,
        head: int = 0,
        texture: int = 0,
        noise: int = 0,
        norm: str = "batch",
        decoder_noise: bool = False,
    ) -> None:
        super().__init__()
        check_decoder_noise(decoder_noise, noise)
        self.skips, self.out_channels = skips, out_channels
        self.encoding, self.texture = ClassEncoding(classes, encoding), make_fixed_texture(texture)
        self.noise = make_drawn_noise(noise)
        widths = [width * min(2**level, 8) for level in range(levels)]
        sources = [self.encoding.channels + texture + noise, *widths]
        self.down = nn.ModuleList(
            Down(sources[level], widths[level], norm if 0 < level < levels - 1 else NONE)
            for level in range(levels)
        )
        targets = [head or max(1, width // 8, out_channels), *widths]
        self.up = nn.ModuleList(
            _up(
                up,
                widths[level] * (2 if skips and level < levels - 1 else 1),
                targets[level],
                level == 0,
                norm,
            )
            for level in reversed(range(levels))
        )
        self.grain = nn.ModuleList(
            added_noise(targets[level], decoder_noise and level > 0) for level in reversed(range(levels))
        )
        self.channels = [(level - 1) % max(1, noise) for level in reversed(range(levels))]  # of the noise
        self.last = same_convolution(targets[0], out_channels)

    def forward(self, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Class indices (B, 1, S, S) in 0..classes -> (B, out_channels, S, S), channel 0 in [-1, 1].

        ``noise`` is N(0, 1), (B, C, S, S); left out, the network has its own.
        """
        kept = []
        white = self.noise.white(label, noise)  # (B, noise, S, S)
        x = self.noise(self.texture(self.encoding(label)), label, white)  # (B, channels + .. + noise, S, S)
        for down in self.down:
            x = down(x)
            kept.append(x)
        kept.pop()  # the innermost output is no skip
        for level, (up, grain) in enumerate(zip(self.up, self.grain)):  # noqa: B905  TorchScript
            if self.skips and level > 0:
                x = torch.cat([x, kept.pop()], dim=1)  # (B, 2 C, h, w)
            channel = self.channels[level]
            x = grain(up(x), white[:, channel : channel + 1])
        x = self.last(x).float()
        image = 2 * torch.sigmoid(x[:, :1]) - 1  # (B, 1, S, S)
        return torch.cat([image, x[:, 1:]], dim=1) if self.out_channels > 1 else image


class Down(nn.Sequential):
    """4 x 4 convolution of stride 2, norm, LeakyReLU: (B, C, h, w) -> (B, D, h/2, w/2)."""

    def __init__(self, source: int, target: int, norm: str) -> None:
        convolution = nn.Conv2d(source, target, 4, stride=2, padding=1, bias=norm == NONE)
        super().__init__(convolution, norm_layer(norm, target), nn.LeakyReLU(SLOPE))


def same_convolution(source: int, target: int, bias: bool = True) -> nn.Sequential:
    """4 x 4 convolution of stride 1 that keeps the size: (B, C, h, w) -> (B, D, h, w)."""
    return nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(source, target, 4, bias=bias))


def _up(kind: str, source: int, target: int, outermost: bool, norm: str) -> nn.Sequential:
    """A step up: (B, C, h, w) -> (B, D, 2h, 2w).

    In the published code the ReLU precedes the norm, and the convolution of the outermost step is the last
    layer of the network.
    """
    if kind == "transposed_conv" and not outermost:
        raised = upsampling_layer("transposed", source, target, bias=False)  # the next convolution has one
        return nn.Sequential(raised, same_convolution(target, target), nn.ReLU(), norm_layer(norm, target))
    raised = upsampling_layer("transposed" if kind == "transposed_conv" else kind, source, target, bias=False)
    return nn.Sequential(raised, norm_layer(norm, target), nn.LeakyReLU(SLOPE))


class PatchGridDiscriminator(nn.Module):
    """Five 4 x 4 convolutions on image and condition, concatenated, that give one logit for each patch.

    256 x 256 pixels give 32 x 32 logits with 3 downsamplings (the paper), each seeing 70 x 70 pixels, and
    16 x 16 with 4 (the published code), each seeing 94 x 94. Widths are ``width`` times 1, 2, 4, 8 in both:
    2 764 609 parameters with one condition channel and width 64. Norm and LeakyReLU follow all layers except
    the first (no norm) and the last (neither).

    Args:
        classes, encoding: of the condition, see `common.networks.blocks`.
        image_channels: channels of the image.
        width: channels of the first layer.
        downsamplings: number of layers with stride 2, from the first on.
        norm: see `common.networks.blocks.norm_layer`; the paper's is ``batch``. A gradient penalty needs any
            other.
    Raises:
        UserError: more downsamplings than layers before the last, or an unknown norm.

    Example:
        >>> discriminator = PatchGridDiscriminator(width=4)
        >>> discriminator(torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)).logits[0].shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(
        self,
        classes: int = 7,
        encoding: str = "index",
        image_channels: int = 1,
        width: int = 64,
        downsamplings: int = 3,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if not 0 <= downsamplings < LAYERS:
            raise UserError(f"downsamplings {downsamplings}: the discriminator takes 0 to {LAYERS - 1}")
        self.encoding = ClassEncoding(classes, encoding)
        widths = [image_channels + self.encoding.channels, *(width * 2**layer for layer in range(LAYERS - 1))]
        self.hidden = nn.ModuleList(
            _judging(widths[layer], widths[layer + 1], layer < downsamplings, norm if layer else NONE)
            for layer in range(LAYERS - 1)
        )
        self.last = same_convolution(widths[-1], 1)

    def forward(self, image: Tensor, condition: Tensor) -> DiscriminatorOutput:
        """Image (B, C, S, S), class indices (B, 1, S, S) -> logits (B, 1, s, s)."""
        x = torch.cat([image, self.encoding(condition)], dim=1)  # (B, C + channels, S, S)
        features = []
        for layer in self.hidden:
            x = layer(x)
            features.append(x)
        return DiscriminatorOutput([self.last(x)], [features])


def _judging(source: int, target: int, halve: bool, norm: str) -> nn.Sequential:
    """A hidden layer of the discriminator: (B, C, h, w) -> (B, D, h/2, w/2), or (B, D, h, w)."""
    if halve:
        return Down(source, target, norm)
    convolution = same_convolution(source, target, bias=norm == NONE)
    return nn.Sequential(convolution, norm_layer(norm, target), nn.LeakyReLU(SLOPE))


class ContrastGenerator(nn.Module):
    """Adds twice the output of a `HeartGenerator` to its input image, (B, 1, S, S) in [-1, 1] both.

    Structures that both contrasts share pass through at full resolution; an output of 0 leaves the image as
    it is. The factor 2 lets a change reach from black to white; the sum is clipped to [-1, 1].

    Args:
        encoding: ``image``.
        settings: further arguments of `HeartGenerator`.

    Example:
        >>> import torch
        >>> network = ContrastGenerator(classes=1, levels=2, width=4)
        >>> network(torch.zeros(1, 1, 16, 16)).shape
        torch.Size([1, 1, 16, 16])
    """

    def __init__(self, encoding: str = "image", **settings: Any) -> None:
        super().__init__()
        self.change = HeartGenerator(encoding=encoding, **settings)

    def forward(self, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Condition image (B, 1, S, S) -> image (B, 1, S, S), both in [-1, 1]; noise as `HeartGenerator`."""
        return (label + 2 * self.change(label, noise)).clamp(-1.0, 1.0)
