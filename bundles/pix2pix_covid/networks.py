"""The generators of pix2pix_covid: Isola's U-Net, and MONAI's SPADE net behind the same call."""

from __future__ import annotations

import torch
from monai.networks.nets import SPADENet
from torch import Tensor, nn
from torch.nn.functional import dropout

NORMS: dict[str, type[nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "instance": nn.InstanceNorm2d,
    "none": nn.Identity,
}


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
        norm: "batch", "instance" or "none".
        texture: channels of a fixed noise map that the net sees beside the mask; 0 for none, as published.
            A mask is flat almost everywhere, and convolutions can draw no vessels from what is flat. The map
            is always the same and part of the state_dict, so a mask still gives one picture.
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
    ) -> None:
        super().__init__()
        self.texture = FixedTexture(texture) if texture else nn.Identity()
        widths = [ngf * min(2**level, 8) for level in range(levels)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            source = in_channels + texture if level == 0 else widths[level - 1]
            plain = level in (0, levels - 1)  # the picture's layer, and where one pixel may be left
            self.down.append(Down(source, width, "none" if plain else norm, activate=level > 0))
        for level in reversed(range(levels)):
            source = widths[level] * (1 if level == levels - 1 else 2)
            target = out_channels if level == 0 else widths[level - 1]
            inner = max(1, levels - 4) <= level < levels - 1
            probability = dropout if inner else 0.0
            name = "none" if level == 0 else norm
            self.up.append(Up(source, target, name, probability, noise_at_inference, upsample))

    def forward(self, mask: Tensor) -> Tensor:
        """Mask (B, in_channels, S, S) in {0, 1} -> image (B, out_channels, S, S) in [-1, 1]."""
        skips = []
        x = self.texture(mask * 2 - 1)  # (B, in_channels + texture, S, S)
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()  # the bottleneck's own output is no skip
        for level, up in enumerate(self.up):  # TorchScript iterates over modules, but not over slices of them
            x = up(x if level == 0 else torch.cat([x, skips.pop()], dim=1))  # (B, 2 C, h, w)
        return torch.tanh(x)


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


class Down(nn.Module):
    """LeakyReLU, 4 x 4 convolution of stride 2, norm: (B, C, h, w) -> (B, D, h/2, w/2)."""

    def __init__(self, source: int, target: int, norm: str, activate: bool) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.2) if activate else nn.Identity()
        self.conv = nn.Conv2d(source, target, 4, stride=2, padding=1, bias=norm == "none")
        self.norm = _norm(norm, target)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, h/2, w/2)."""
        return self.norm(self.conv(self.activation(x)))


class Up(nn.Module):
    """ReLU, upsampling by 2, norm, dropout: (B, C, h, w) -> (B, D, 2h, 2w)."""

    def __init__(
        self, source: int, target: int, norm: str, probability: float, always: bool, upsample: str
    ) -> None:
        super().__init__()
        self.conv = UPSAMPLERS[upsample](source, target, norm == "none")
        self.norm = _norm(norm, target)
        self.probability, self.always = probability, always

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, 2h, 2w)."""
        x = self.norm(self.conv(torch.relu(x)))
        if self.probability > 0:
            x = dropout(x, self.probability, self.training or self.always)
        return x


class SpadeGenerator(nn.Module):
    """MONAI's SPADENet without its encoder (Park et al. 2019): the mask steers every normalisation layer.

    (B, 1, S, S) in {0, 1} -> (B, 1, S, S) in [-1, 1].

    Args:
        image_size: S, a multiple of ``2 ** len(channels)``.
        channels: widths from the outermost level to the innermost.
    """

    def __init__(self, image_size: int = 128, channels: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.net = SPADENet(
            spatial_dims=2,
            in_channels=1,
            out_channels=channels[0],
            label_nc=1,
            input_shape=[image_size, image_size],
            channels=list(channels),
            is_vae=False,
            spade_intermediate_channels=4 * channels[0],
        )
        self.head = nn.Conv2d(channels[0], 1, 3, padding=1)

    def forward(self, mask: Tensor) -> Tensor:
        """Mask (B, 1, S, S) in {0, 1} -> image (B, 1, S, S) in [-1, 1]."""
        return torch.tanh(self.head(self.net(mask)[0]))


def _norm(name: str, width: int) -> nn.Module:
    if name == "instance":
        return nn.InstanceNorm2d(width, affine=True)
    return NORMS[name](width)


def _transposed(source: int, target: int, bias: bool) -> nn.Module:
    return nn.ConvTranspose2d(source, target, 4, stride=2, padding=1, bias=bias)


def _resize(source: int, target: int, bias: bool) -> nn.Module:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(source, target, 3, padding=1, bias=bias)
    )


UPSAMPLERS = {"transposed": _transposed, "resize": _resize}


def initialise(network: nn.Module, deviation: float = 0.02) -> nn.Module:
    """Draws convolution weights from N(0, 0.02) and norm scales from N(1, 0.02), as DCGAN and pix2pix do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, deviation)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, deviation)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
