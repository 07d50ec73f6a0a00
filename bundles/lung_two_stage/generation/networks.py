"""Generators and discriminators of nodule crops and slices: convolutional, dense, capsules, small BigGAN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from common.capsules import PrimaryCapsules, RoutingCapsules, lengths
from common.errors import UserError
from common.networks.blocks import (
    NONE,
    LayerNoise,
    NoLayerNoise,
    class_embedding,
    class_projection,
    norm_layer,
    upsampling_layer,
)
from common.networks.discriminators import DiscriminatorOutput

SMALLEST = 4
"""Side of the first map of a generator and of the last one of a discriminator."""
SLOPE = 0.2
EMBEDDING = 16
"""Size of a class embedding."""


def doublings(image_size: int) -> int:
    """The number of doublings from `SMALLEST` pixels to the image.

    Raises:
        UserError: the size is not a power of 2 from 16 up.

    Example:
        >>> doublings(32)
        3
    """
    if image_size < 4 * SMALLEST or image_size & (image_size - 1):
        raise UserError(f"image_size {image_size} does not fit the networks; take 16, 32, 64 or 128")
    return int(math.log2(image_size // SMALLEST))


def doubling(kind: str, source: int, target: int) -> nn.Sequential:
    """A layer (B, C, h, w) -> (B, D, 2h, 2w) with BatchNorm and ReLU."""
    layer = upsampling_layer(kind, source, target, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(target), nn.ReLU())


def halving(source: int, target: int, norm: str = NONE) -> nn.Sequential:
    """A layer (B, C, h, w) -> (B, D, h/2, w/2) with LeakyReLU."""
    convolution = nn.Conv2d(source, target, 4, stride=2, padding=1, bias=norm == NONE)
    return nn.Sequential(convolution, norm_layer(norm, target), nn.LeakyReLU(SLOPE))


def keeping_size(network: nn.Module) -> nn.Module:
    """Initialises convolutions so that features keep their magnitude (He et al. 2015).

    Networks without norms need it: with a standard deviation of 0.02 each layer halves its input.

    Example:
        >>> layer = keeping_size(nn.Conv2d(64, 64, 3, padding=1))
        >>> features = torch.randn(4, 64, 16, 16)
        >>> 0.8 < float(layer(functional.leaky_relu(features, SLOPE)).detach().std()) < 1.6
        True
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, SLOPE, nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


class ConvolutionalGenerator(nn.Module):
    """A DCGAN generator (Radford et al. 2016): latents to images by doubling a 4 x 4 map.

    (B, latent) from N(0, I) and, with classes, class indices (B,) -> (B, channels, S, S) in [-1, 1].
    BatchNorm and ReLU follow every layer but the last, which a tanh follows.

    Args:
        image_size: S, a power of 2 from 16 up.
        latent: size of a latent.
        width: channels of the map before the last layer; each smaller map has twice as many.
        channels: of the image; nodules have two: HU window and alpha.
        classes: number of classes; 0 for none. A learned embedding of 16 values joins the latent.
        upsample: ``resize`` or ``transposed``, see `common.networks.blocks`.
        grain: add noise of learned strength after every doubling (Karras et al. 2019, section 3.2), so that
            the latent need not describe the noise of a CT.
    Raises:
        UserError: an unknown size or layer.

    Example:
        >>> ConvolutionalGenerator(image_size=32, latent=8, width=4)(torch.randn(3, 8)).shape
        torch.Size([3, 2, 32, 32])
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
        inner = range(1, levels + 1) if grain else ()  # of the layers, those that double
        self.grain = nn.ModuleList(
            LayerNoise(widths[n], seed=n) if n in inner else NoLayerNoise() for n in range(levels + 2)
        )

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, with classes, class indices (B,) -> (B, channels, S, S)."""
        x = latent
        if condition is not None:
            x = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)  # (B, latent + 16)
        x = x[:, :, None, None]
        for layer, grain in zip(self.layers, self.grain):  # noqa: B905  TorchScript's zip is strict by itself
            x = grain(layer(x), latent)
        return torch.tanh(x.float())

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """The sizes of a network of this kind, from its state_dict, for messages."""
        classes = len(state["embedding.table"]) if "embedding.table" in state else 0
        levels = sum(name.startswith("layers.") and name.endswith(".1.running_mean") for name in state) - 1
        latent = len(state["layers.0.0.weight"]) - (EMBEDDING if classes else 0)
        return {"latent size": latent, "image size": SMALLEST * 2**levels, "number of classes": classes}


class ConvolutionalDiscriminator(nn.Module):
    """A DCGAN discriminator: convolutions of stride 2 down to 4 x 4, then one over the whole map.

    (B, channels, S, S) in [-1, 1] -> logits (B, 1). The class is used by projection (Miyato and Koyama 2018).

    Args:
        image_size: S, a power of 2 from 16 up.
        width: channels of the first layer; each smaller map has twice as many.
        channels: of the image.
        classes: number of classes; 0 for none.
        norm: of all layers but the first, see `common.networks.blocks.norm_layer`. With a gradient penalty
            any but ``batch``, which makes the samples of a batch depend on each other.
    Raises:
        UserError: an unknown size or norm.

    Example:
        >>> ConvolutionalDiscriminator(16, width=4, channels=1)(torch.zeros(2, 1, 16, 16)).logits[0].shape
        torch.Size([2, 1])
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

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, channels, S, S) and, with classes, class indices (B,) -> logits (B, 1)."""
        features, x = [], image
        for layer in self.hidden:
            x = layer(x)
            features.append(x)
        logits = self.last(x).flatten(1)  # (B, 1)
        if condition is not None:
            logits = logits + (self.projection(condition) * x.mean((2, 3))).sum(1, keepdim=True)
        return DiscriminatorOutput([logits], [features])


class DenseGenerator(nn.Module):
    """Three dense layers (Goodfellow et al. 2014): latents to images (B, channels, S, S) in [-1, 1].

    Args:
        image_size: S.
        latent: size of a latent.
        width: units of the hidden layers.
        channels: of the image.
        classes: number of classes; 0 for none.

    Example:
        >>> DenseGenerator(image_size=16, latent=8, width=4)(torch.randn(3, 8)).shape
        torch.Size([3, 2, 16, 16])
    """

    def __init__(
        self, image_size: int = 32, latent: int = 64, width: int = 256, channels: int = 2, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.shape = channels, image_size, image_size
        self.embedding = class_embedding(classes, EMBEDDING)
        source = latent + (EMBEDDING if classes else 0)
        self.layers = nn.Sequential(
            nn.Linear(source, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, channels * image_size**2),
        )

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, with classes, class indices (B,) -> (B, channels, S, S)."""
        x = latent
        if condition is not None:
            x = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)
        return torch.tanh(self.layers(x).float()).unflatten(1, self.shape)


class DenseDiscriminator(nn.Module):
    """Three dense layers: images (B, channels, S, S) and classes (B,) -> logits (B, 1).

    Args:
        image_size, width, channels, classes: see `DenseGenerator`.

    Example:
        >>> DenseDiscriminator(16, width=4, channels=1)(torch.zeros(2, 1, 16, 16)).logits[0].shape
        torch.Size([2, 1])
    """

    def __init__(self, image_size: int = 32, width: int = 256, channels: int = 2, classes: int = 0) -> None:
        super().__init__()
        self.embedding = class_embedding(classes, EMBEDDING)
        source = channels * image_size**2 + (EMBEDDING if classes else 0)
        self.hidden = nn.Sequential(
            nn.Linear(source, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width), nn.LeakyReLU(SLOPE)
        )
        self.last = nn.Linear(width, 1)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, channels, S, S) and, with classes, class indices (B,) -> logits (B, 1)."""
        x = image.flatten(1)
        if condition is not None:
            x = torch.cat([x, self.embedding(condition).to(x.dtype)], dim=1)
        features = self.hidden(x)
        return DiscriminatorOutput([self.last(features)], [[features]])


SCORES = ("linear", "length")
PRIMARY_SIDE = 4
"""Side of the map of primary capsules: features of 8 x 8 pixels, halved once more."""


class CapsuleDiscriminator(nn.Module):
    """Convolutions, primary capsules and routing (Chi 2023; Jaiswal et al. 2018).

    (B, channels, S, S) in [-1, 1] -> scores (B, 1). The number of convolutions follows from the image's size,
    so that primary capsules always form a 4 x 4 map.

    With the score ``linear``, a linear layer reads several output capsules before their squash: an unbounded
    critic, as the Wasserstein loss needs; the class is used by projection. With ``length``, as published,
    there is one output capsule for each class, or a single one; its length from 0 to 1 is the score, as the
    margin loss needs. With a single output capsule there is nothing to route.

    Convolutions are initialised so that features keep their magnitude: the squash shortens short capsules
    further, and the routing would see nothing.

    Args:
        image_size: S, a power of 2 from 16 up.
        width: channels of the first layer.
        channels: of the image.
        classes: number of classes; 0 for none.
        maps, size: number of primary capsules per pixel of their map, and their size.
        capsules, capsule_size: number of output capsules of the score ``linear``, and their size.
        iterations, gradients: see `common.capsules.RoutingCapsules`; a gradient penalty needs ``all``.
        score: ``linear`` or ``length``.
        norm: of the convolutions but the first, see `common.networks.blocks.norm_layer`; a gradient penalty
            needs any but ``batch``.
    Raises:
        UserError: an unknown size, score or norm.

    Example:
        >>> output = CapsuleDiscriminator(image_size=16, width=4)(torch.zeros(2, 2, 16, 16))
        >>> output.logits[0].shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        image_size: int = 32,
        width: int = 32,
        channels: int = 2,
        classes: int = 0,
        maps: int = 16,
        size: int = 8,
        capsules: int = 8,
        capsule_size: int = 16,
        iterations: int = 3,
        gradients: str = "all",
        score: str = "linear",
        norm: str = NONE,
    ) -> None:
        super().__init__()
        if score not in SCORES:
            raise UserError(f"score {score!r} is unknown; choose {' or '.join(SCORES)}")
        count = max(1, classes) if score == "length" else capsules
        widths = [channels, *(width * 2**level for level in range(doublings(image_size) - 1))]
        self.hidden = nn.Sequential(
            *(halving(widths[n], widths[n + 1], norm if n else NONE) for n in range(len(widths) - 1))
        )  # down to 8 x 8
        for layer in self.hidden.modules():  # as keeping_size, but for the biases
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE, nonlinearity="leaky_relu")
        self.primary = PrimaryCapsules(widths[-1], maps, size, kernel=4, stride=2, padding=1)
        self.routing = RoutingCapsules(
            maps * PRIMARY_SIDE**2, size, count, capsule_size, iterations, gradients, score == "length"
        )
        self.linear = nn.Linear(count * capsule_size, 1) if score == "linear" else None
        self.projection = class_projection(classes if score == "linear" else 0, count * capsule_size)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, channels, S, S) and, with classes, class indices (B,) -> scores (B, 1)."""
        features = self.hidden(image)
        capsules = self.routing(self.primary(features))  # (B, J, D)
        scores = (
            self._lengths(capsules, condition) if self.linear is None else self._read(capsules, condition)
        )
        return DiscriminatorOutput([scores], [[features]])

    def _lengths(self, capsules: Tensor, condition: Tensor | None) -> Tensor:
        scores = lengths(capsules)  # (B, J)
        return scores[:, :1] if condition is None else scores.gather(1, condition.long()[:, None])

    def _read(self, capsules: Tensor, condition: Tensor | None) -> Tensor:
        assert self.linear is not None
        values = capsules.flatten(1)  # (B, J D)
        with torch.autocast(values.device.type, enabled=False):
            scores: Tensor = self.linear(values)
            if condition is None:
                return scores
            return scores + (self.projection(condition) * values).sum(1, keepdim=True)


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

    Example:
        >>> BigGanGenerator(image_size=16, latent=8, width=4)(torch.randn(3, 8)).shape
        torch.Size([3, 2, 16, 16])
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

    Example:
        >>> BigGanDiscriminator(16, width=4, channels=1)(torch.zeros(2, 1, 16, 16)).logits[0].shape
        torch.Size([2, 1])
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
