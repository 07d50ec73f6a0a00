"""Image-to-image generators that bundles share: CycleGAN's ResNet and MONAI's SPADE."""

from __future__ import annotations

from itertools import pairwise

import torch
from monai.networks.nets import SPADENet
from torch import Tensor, nn

from common.errors import UserError
from common.networks.blocks import ClassEncoding, make_drawn_noise, make_fixed_texture, upsampling_layer

BLOCKS = {256: 9, 0: 6}
"""Residual blocks by the smallest image size that they are for (Zhu et al. 2017, section 7.2)."""


class ResnetGenerator(nn.Module):
    """Johnson's network as CycleGAN has it (Johnson et al. 2016; Zhu et al. 2017, section 7.2).

    (B, image_channels, H, W) in [-1, 1] -> (B, out_channels, H, W) in [-1, 1], H and W multiples of ``2 **
    downsamplings``. In Zhu's notation: c7s1-w, d2w, d4w, R4w times ``blocks``, u2w, uw, c7s1-1, a tanh; with
    instance norm and mirrored borders. With width 64 and 9 blocks 11.4 M parameters.

    Args:
        width: channels of the first layer; they double with each downsampling.
        blocks: residual blocks, see `blocks_for`.
        downsamplings: halvings of the image before the blocks.
        residual: return the image plus a change, clipped to [-1, 1], instead of a new image. The network then
            need not redraw what is right, and instance norm cannot lose the gray level; it starts as the
            identity after `start_as_identity`.
        upsample: ``transposed`` or ``resize``, see `common.networks.blocks`.
    Raises:
        UserError: no block, or a residual network whose channels differ in and out.

    Example:
        >>> ResnetGenerator(width=4, blocks=1)(torch.zeros(1, 1, 32, 32)).shape
        torch.Size([1, 1, 32, 32])
    """

    def __init__(
        self,
        image_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        blocks: int = 9,
        downsamplings: int = 2,
        residual: bool = False,
        upsample: str = "transposed",
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise UserError(f"blocks {blocks}: a ResNet generator needs at least one")
        if residual and image_channels != out_channels:
            raise UserError(f"residual: {image_channels} channels cannot be changed into {out_channels}")
        self.residual = residual
        widths = [width * 2**level for level in range(downsamplings + 1)]
        layers: list[nn.Module] = [mirrored(image_channels, width, 7), *normed(width)]
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), *normed(wide)]
        layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
        for wide, narrow in pairwise(widths[::-1]):
            layers += [upsampling_layer(upsample, wide, narrow, bias=False), *normed(narrow)]
        self.layers = nn.Sequential(*layers)
        self.last = mirrored(width, out_channels, 7, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, image_channels, H, W) in [-1, 1] -> (B, out_channels, H, W) in [-1, 1]."""
        drawn = torch.tanh(self.last(self.layers(image)).float())
        return (image + drawn).clamp(-1, 1) if self.residual else drawn


class ResidualBlock(nn.Module):
    """x plus two 3 x 3 convolutions of it: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            mirrored(width, width, 3), *normed(width), mirrored(width, width, 3), nn.InstanceNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        out: Tensor = x + self.layers(x)
        return out


def blocks_for(image_size: int) -> int:
    """Returns the published number of residual blocks: 6 up to 255 pixels, 9 above."""
    return next(blocks for smallest, blocks in BLOCKS.items() if image_size >= smallest)


def start_as_identity(network: nn.Module) -> nn.Module:
    """Sets the last layer of a residual `ResnetGenerator` to 0; other networks stay as they are."""
    if isinstance(network, ResnetGenerator) and network.residual:
        for parameter in network.last.parameters():
            nn.init.zeros_(parameter)
    return network


def mirrored(source: int, target: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    """Returns a convolution that keeps the size, with reflect padding."""
    return nn.Conv2d(source, target, kernel, padding=kernel // 2, bias=bias, padding_mode="reflect")


def normed(width: int) -> list[nn.Module]:
    """Returns instance norm without weights, as published, and a ReLU."""
    return [nn.InstanceNorm2d(width), nn.ReLU()]


class SpadeGenerator(nn.Module):
    """MONAI's SPADENet without its encoder (Park et al. 2019): the label modulates every normalisation layer.

    Class indices (B, 1, S, S) in 0..classes -> (B, 1, S, S) in [-1, 1]. TorchScript can trace MONAI's net but
    not compile it (``ckpt_export --use_trace true``).

    Args:
        image_size: S, a multiple of ``2 ** len(channels)``; the net takes no other size.
        channels: widths from the outermost level to the innermost.
        classes, encoding: of the label, see `common.networks.blocks`.
        noise, texture: noise channels with the label, see `common.networks.blocks`.
    """

    def __init__(
        self,
        image_size: int = 128,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        classes: int = 1,
        encoding: str = "index",
        texture: int = 0,
        noise: int = 0,
    ) -> None:
        super().__init__()
        self.encoding, self.texture = ClassEncoding(classes, encoding), make_fixed_texture(texture)
        self.noise = make_drawn_noise(noise)
        self.net = SPADENet(
            spatial_dims=2,
            in_channels=1,
            out_channels=channels[0],
            label_nc=self.encoding.channels + texture + noise,
            input_shape=[image_size, image_size],
            channels=list(channels),
            is_vae=False,
            spade_intermediate_channels=4 * channels[0],
        )
        self.head = nn.Conv2d(channels[0], 1, 3, padding=1)

    def forward(self, label: Tensor, noise: Tensor | None = None) -> Tensor:
        """Class indices (B, 1, S, S) in 0..classes, noise (B, C, S, S) or none -> (B, 1, S, S) in [-1, 1]."""
        inputs = self.noise(self.texture(self.encoding(label)), label, noise)  # (B, .. + noise, S, S)
        return torch.tanh(self.head(self.net(inputs)[0]))
