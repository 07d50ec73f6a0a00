"""Building blocks that generators and discriminators share: norms, upsampling, classes, labels, noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn
from torch.nn.functional import interpolate

from common.errors import UserError

NONE = "none"
NORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "batch": ("batch", {}),
    "instance": ("instance", {"affine": True}),
    "layer": ("group", {"num_groups": 1}),
}
"""In MONAI's terms, those that are the same for any number of channels."""
GROUP, GROUP_CHANNELS = "group", 16
"""Channels of a group (Wu and He 2018, table 3)."""


def norm_layer(name: str, channels: int) -> nn.Module:
    """Returns the normalisation layer of that name: (B, C, h, w) -> (B, C, h, w).

    ``batch`` normalises by the batch's statistics in training and by their running averages in evaluation;
    the two differ most where a batch is one image. The others see one image at a time, in training as later:
    ``instance`` each channel, ``layer`` all channels together, ``group`` 16 channels together (fewer where
    they do not divide C). All have a learned scale and shift of each channel; ``none`` does nothing.

    Args:
        channels: C.
    Raises:
        UserError: no such norm.

    Example:
        >>> norm_layer("layer", 32).num_groups
        1
    """
    if name == NONE:
        return nn.Identity()
    if name == GROUP:
        return get_norm_layer(
            (GROUP, {"num_groups": channels // math.gcd(channels, GROUP_CHANNELS)}), 2, channels
        )
    return get_norm_layer(_known(name), spatial_dims=2, channels=channels)


def monai_norm(norm: str | Sequence[Any] | None) -> tuple[str, dict[str, Any]] | None:
    """Returns a norm in the terms of MONAI's networks.

    Args:
        norm: one of `NORMS`' names or ``none``, by itself or as a list's only entry; or a list of a name and
            arguments in MONAI's own terms, such as ``[group, {num_groups: 4}]``.
    Raises:
        UserError: no such norm, or ``group`` without its number of groups.

    Example:
        >>> monai_norm("instance")
        ('instance', {'affine': True})
    """
    name, arguments = _entries(norm)
    if name == NONE:
        return None
    if name.lower() == GROUP and "num_groups" not in (arguments or {}):
        raise UserError("norm 'group' needs its number of groups here: [group, {num_groups: 4}]")
    return _known(name.lower()) if arguments is None else (name, dict(arguments))


def _entries(norm: str | Sequence[Any] | None) -> tuple[str, Mapping[str, Any] | None]:
    """Returns name and arguments, None without any."""
    entries = [norm or NONE] if norm is None or isinstance(norm, str) else list(norm)
    name, arguments = (*entries, None)[:2] if entries else (None, None)
    if len(entries) > 2 or not isinstance(name, str) or not isinstance(arguments, Mapping | None):
        raise UserError(f"norm {norm!r}: give a name, or a list of a name and its arguments")
    return name, arguments


def _known(name: str) -> tuple[str, dict[str, Any]]:
    if name not in NORMS:
        raise UserError(f"norm {name!r} is unknown; choose one of {', '.join((*NORMS, GROUP, NONE))}")
    return NORMS[name]


def upsampling_layer(kind: str, source: int, target: int, bias: bool) -> nn.Module:
    """Returns a layer that doubles height and width: (B, C, h, w) -> (B, D, 2h, 2w).

    Args:
        kind: ``transposed``, a 4 x 4 transposed convolution, or ``resize``, nearest pixels and a 3 x 3
            convolution, which leaves no checkerboard (Odena et al. 2016).
        source, target: channels C and D.
        bias: of the convolution; none where a norm follows.
    Raises:
        UserError: no such layer.

    Example:
        >>> upsampling_layer("resize", 8, 4, bias=False)(torch.zeros(1, 8, 16, 16)).shape
        torch.Size([1, 4, 32, 32])
    """
    if kind == "transposed":
        return nn.ConvTranspose2d(source, target, 4, stride=2, padding=1, bias=bias)
    if kind == "resize":
        convolution = nn.Conv2d(source, target, 3, padding=1, bias=bias)
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution)
    raise UserError(f"upsampling {kind!r} is unknown; choose transposed or resize")


class ClassEmbedding(nn.Module):
    """A learned vector for each class; between two classes lies the mixture of their vectors.

    (B,) in 0..K-1 -> (B, size). 1.25 is three quarters of class 1 and a quarter of class 2: where classes
    have an order, such as severities, one can interpolate between them.

    Args:
        classes: K.
        size: of the vectors; drawn from N(0, 1).

    Example:
        >>> embedding = ClassEmbedding(classes=3, size=4)
        >>> between = embedding(torch.tensor([1.25]))
        >>> torch.allclose(between, 0.75 * embedding.table[1] + 0.25 * embedding.table[2])
        True
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(classes, size))

    def forward(self, index: Tensor) -> Tensor:
        """Class indices (B,), whole or between -> (B, size)."""
        positions = torch.arange(self.table.shape[0], device=index.device)
        apart = (index.to(self.table.dtype).reshape(-1, 1) - positions).abs()  # (B, K)
        return (1 - apart).clamp_min(0) @ self.table


class NoClasses(nn.Module):
    """Replaces the embedding where there are no classes: (B,) -> (B, 0)."""

    def forward(self, index: Tensor) -> Tensor:
        """Class indices (B,) -> (B, 0)."""
        return torch.empty(index.shape[0], 0, device=index.device)


def class_embedding(classes: int, size: int) -> nn.Module:
    """Returns a `ClassEmbedding`, or `NoClasses` for 0 classes."""
    return ClassEmbedding(classes, size) if classes else NoClasses()


def class_projection(classes: int, size: int) -> nn.Module:
    """Returns the class vectors of a projection discriminator: (B,) -> (B, size); `NoClasses` for 0 classes.

    Their product with ``size`` features is added to the logit (Miyato and Koyama 2018). They start at about
    unit length: with the embeddings' length, sqrt(size), the product would dominate the logit.
    """
    embedding = class_embedding(classes, size)
    if isinstance(embedding, ClassEmbedding):
        nn.init.normal_(embedding.table, std=size**-0.5)
    return embedding


ENCODINGS = ("index", "onehot", "image")


class ClassEncoding(nn.Module):
    """Encodes a map of class indices for a network: (B, 1, H, W) -> (B, `channels`, H, W).

    Args:
        classes: K, the number of classes without the background 0.
        kind: ``index``: index / K in [0, 1], one channel (Habijan 2022). ``onehot``: K
            channels in {0, 1}, channel k - 1 for class k. ``image``: not a label but an image in [-1, 1],
            passed through.
    Raises:
        UserError: no such encoding, or no class.

    Example:
        >>> ClassEncoding(classes=2, kind="onehot")(torch.tensor([[[[0.0, 1.0, 2.0]]]])).tolist()
        [[[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]]
    """

    def __init__(self, classes: int = 1, kind: str = "index") -> None:
        super().__init__()
        if kind not in ENCODINGS:
            raise UserError(f"encoding {kind!r} is unknown; choose one of {', '.join(ENCODINGS)}")
        if classes < 1:
            raise UserError(f"{classes} classes to encode; there must be at least one")
        self.classes, self.kind = int(classes), kind

    @property
    def channels(self) -> int:
        """Channels of the output."""
        return self.classes if self.kind == "onehot" else 1

    def forward(self, label: Tensor) -> Tensor:
        """Class indices (B, 1, H, W) in 0..K -> (B, channels, H, W); an image passes as it is."""
        if self.kind == "onehot":
            indices = torch.arange(1, self.classes + 1, device=label.device).view(1, -1, 1, 1)  # (1, K, 1, 1)
            return (label.round() == indices).to(label.dtype)  # (B, K, H, W)
        if self.kind == "index":
            return label / self.classes
        return label


class DrawnNoise(nn.Module):
    """Appends channels of N(0, 1) noise that differ from condition to condition.

    (B, C, H, W) -> (B, C + channels, H, W). Without noise given, training draws it from torch's generator, as
    dropout does. In evaluation it is a function of the condition: the ``bank``, a map of noise stored with
    the weights, is shifted cyclically by rows and columns that a hash of the condition's pixels gives. Equal
    conditions then get equal noise, and TorchScript and ONNX can export the network. Beyond ``size`` pixels
    the noise repeats.

    White noise is resampled to several scales, in turn 1, 2, 8 and 32 pixels: fine ones for vessels, coarse
    ones for other differences between patients, such as the outline of the body, which a mask does not
    contain and a convolution can hardly read from white noise.

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
        """(B, C, H, W), condition (B, K, H, W), noise (B, channels, H, W) -> (B, C + channels, H, W)."""
        return torch.cat([x, self.scaled(self.white(condition, noise).to(x.dtype))], dim=1)

    def white(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """Returns the given noise, else drawn noise or that of the condition: (B, channels, H, W)."""
        if noise is not None:
            return noise
        if self.training:
            shape = [condition.shape[0], self.channels, condition.shape[2], condition.shape[3]]
            return torch.randn(shape, dtype=condition.dtype, device=condition.device)
        return self.of_condition(condition)

    def scaled(self, noise: Tensor) -> Tensor:
        """Resamples white noise (B, channels, H, W) to the channels' scales; the deviation stays about 1."""
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
        """Returns the white noise of conditions (B, K, H, W): (B, channels, H, W)."""
        height, width, device = condition.shape[2], condition.shape[3], condition.device
        values = (condition.float() * self.levels).round().to(torch.int64).flatten(1)  # (B, K H W)
        positions = torch.arange(1, values.shape[1] + 1, device=device)
        weights = positions * self.factor % self.modulus
        mixed = (values * weights).sum(dim=1) % self.modulus  # of integers: exact in any order, (B,)
        row = mixed % self.size
        column = mixed % self.prime % self.size  # no division: ONNX rounds it to float32
        rows = (torch.arange(height, device=device) + row.unsqueeze(1)) % self.size  # (B, H)
        columns = (torch.arange(width, device=device) + column.unsqueeze(1)) % self.size  # (B, W)
        pixels = rows.unsqueeze(2) * self.size + columns.unsqueeze(1)  # (B, H, W)
        taken = self.bank.flatten(1).index_select(1, pixels.flatten())  # (channels, B H W)
        return taken.reshape(self.channels, -1, height, width).transpose(0, 1)


class NoNoise(nn.Module):
    """Replaces `DrawnNoise` where there is none; given noise is ignored."""

    def forward(self, x: Tensor, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """x as it is."""
        return x

    def white(self, condition: Tensor, noise: Tensor | None = None) -> Tensor:
        """No channels: (B, 0, H, W)."""
        return condition[:, :0]


def make_drawn_noise(channels: int) -> DrawnNoise | NoNoise:
    """Returns a `DrawnNoise`, or `NoNoise` for 0 channels."""
    return DrawnNoise(channels) if channels else NoNoise()


def noise_channels(network: nn.Module) -> int:
    """Returns the number of noise channels that a network takes with its condition."""
    return max((part.channels for part in network.modules() if isinstance(part, DrawnNoise)), default=0)


class AddedNoise(nn.Module):
    """Adds white noise to a map, each channel as strongly as it learns to (Karras et al. 2019).

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full([1, channels, 1, 1], 0.1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """(B, C, h, w), white noise (B, 1, S, S) of which the last h x w pixels are taken -> (B, C, h, w)."""
        height, width = x.shape[2], x.shape[3]
        top, left = noise.shape[2] - height, noise.shape[3] - width
        return x + self.strength.to(x.dtype) * noise[:, :, top:, left:].to(x.dtype)


class NoAddedNoise(nn.Module):
    """Takes the place of `AddedNoise` where a layer has none."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Returns ``x``."""
        return x


def check_decoder_noise(decoder_noise: bool, noise: int) -> None:
    """Raises `UserError` if the decoder is to add noise and there are no channels of it."""
    if decoder_noise and not noise:
        raise UserError(
            "network_def: decoder_noise adds the channels of noise, and noise is 0; set it to 4, say"
        )


def added_noise(channels: int, learned: bool) -> AddedNoise | NoAddedNoise:
    """Returns an `AddedNoise` for maps of so many channels, or `NoAddedNoise`."""
    return AddedNoise(channels) if learned else NoAddedNoise()


class NoLayerNoise(nn.Module):
    """Takes the place of `LayerNoise` where a layer has none."""

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Returns ``x``."""
        return x


class LayerNoise(nn.Module):
    """Adds a map of noise to all channels, each with its own learned strength, initially 0.

    (B, C, H, W) and latents (B, L) -> (B, C, H, W). In training the noise is random; in evaluation it follows
    from the latent, see `DrawnNoise`, so that equal latents give equal images.

    Args:
        channels: C.
        seed: seed of the noise in evaluation, different for each layer.
        size: side of that noise in pixels.

    Example:
        >>> layer = LayerNoise(channels=8, seed=0).eval()
        >>> layer(torch.zeros(2, 8, 16, 16), torch.randn(2, 100)).shape
        torch.Size([2, 8, 16, 16])
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


class FixedTexture(nn.Module):
    """Appends channels of N(0, 1) noise that never changes; its own seed draws it, the weights keep it.

    (B, C, H, W) -> (B, C + channels, H, W); the map repeats beyond ``size`` pixels. Every picture then has
    the same fine texture. Kept for models that were trained with it.
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


def make_fixed_texture(channels: int) -> nn.Module:
    """Returns a `FixedTexture`, or the identity for 0 channels."""
    return FixedTexture(channels) if channels else nn.Identity()
