"""The networks of dcgan_covid: noise to a CT slice, and a CT slice to one logit (Gubbi, section II-B)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from common.errors import UserError
from common.networks.blocks import class_embedding, class_projection, norm_layer, upsampling_layer
from common.networks.discriminators import DiscriminatorOutput
from common.networks.skip_excitation import SkipExcitationGenerator

STARTS = ("bilinear", "random")
PACE = 4
"""Further factor by which weights are larger and values smaller.

1, 4 and 16 gave an FID of 2.8, 2.3 and 5.6 (64 x 64, 390 iterations).
"""
NOISE = 1 / 16
"""Noise of a bilinear start: its standard deviation on a pixel, for input values from N(0, 1)."""


class PacedLinear(nn.Linear):
    """A dense layer with equalised learning rate (Karras et al. 2018, section 4.1): (B, n) -> (B, m).

    Adam moves every weight by about the learning rate at every step, whatever its gradient. A pixel with 1
    024 weights of its own would change too much per step, independently of its neighbours, and images become
    noise. Here weights are drawn from N(0, `PACE`) and values are divided by `PACE` and the square root of
    their number: the output is N(0, 1) again, and a step changes it by that much less.

    Example:
        >>> PacedLinear(1024, 16)(torch.zeros(2, 1024)).shape
        torch.Size([2, 16])
    """

    def __init__(self, values: int, outputs: int, bias: bool = True) -> None:
        super().__init__(values, outputs, bias)
        self.scale = 1 / (PACE * math.sqrt(values))
        nn.init.normal_(self.weight, std=PACE)
        if bias:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(B, n) -> (B, m)."""
        return nn.functional.linear(input * self.scale, self.weight, self.bias)

    @torch.no_grad()
    def begin_as(self, matrix: Tensor) -> None:
        """Initialises the layer as a given matrix (m, n), plus `NOISE` of a random initialisation."""
        self.weight.mul_(NOISE).add_(matrix, alpha=1 / self.scale)


class DenseImage(nn.Module):
    """A dense layer from a feature map to an image: (B, 1, m, m) -> (B, 1, S, S).

    Args:
        map_size: m; the map has m x m values.
        image_size: S.
        rank: inner values of a layer in two parts without activation; None for one full layer of
            m x m x S x S weights.
        start: initial weights: ``bilinear`` upsampling plus a little noise, so that training begins with
            smooth images of m x m pixels and learns the details, or ``random``.
    Raises:
        UserError: unknown start.
    """

    def __init__(
        self, map_size: int, image_size: int, rank: int | None = None, start: str = "bilinear"
    ) -> None:
        super().__init__()
        if start not in STARTS:
            raise UserError(f"start {start!r} is unknown; choose {' or '.join(STARTS)}")
        values, pixels = map_size**2, image_size**2
        self.image_size = image_size
        self.inner = nn.Identity() if rank is None else PacedLinear(values, rank, bias=False)
        self.outer = PacedLinear(values if rank is None else rank, pixels)
        rows = bilinear_weights(map_size, image_size)  # (S, m)
        if start == "bilinear" and isinstance(self.inner, PacedLinear):
            outer, inner = separable_factors(rows, self.inner.out_features)
            self.inner.begin_as(inner)
            self.outer.begin_as(outer)
        elif start == "bilinear":
            self.outer.begin_as(torch.kron(rows, rows))  # (S S, m m)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 1, m, m) -> (B, 1, S, S)."""
        pixels = self.outer(self.inner(features.flatten(1)))  # (B, S S)
        return pixels.reshape(-1, 1, self.image_size, self.image_size)


def bilinear_weights(source: int, target: int) -> Tensor:
    """Returns the matrix (target, source) of linear interpolation from ``source`` to ``target`` values.

    Example:
        >>> bilinear_weights(2, 4)[1]
        tensor([0.7500, 0.2500])
    """
    unit = torch.eye(source)[None]  # (1, source, source)
    return nn.functional.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T.contiguous()


def separable_factors(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns the best factors of rank r of ``kron(rows, rows)``: (S S, r) and (r, m m).

    The singular values of a Kronecker product are the products of its factors' singular values.
    """
    left, values, right = np.linalg.svd(rows.double().numpy(), full_matrices=False)  # (S, m), (m,), (m, m)
    order = np.argsort(-np.outer(values, values).ravel(), kind="stable")[:rank]
    first, second = np.divmod(order, len(values))
    scale = np.sqrt(values[first] * values[second])  # (r,)
    outer = np.einsum("ir,jr->ijr", left[:, first], left[:, second]).reshape(-1, len(order))  # (S S, r)
    inner = np.einsum("ri,rj->rij", right[first], right[second]).reshape(len(order), -1)  # (r, m m)
    return torch.from_numpy(outer * scale).float(), torch.from_numpy(scale[:, None] * inner).float()


SMALLEST = 4
"""Side of the first map that the latent becomes, and of the last one before the logit."""
LARGEST_MAP = 32
"""Side of the map before the dense layer: 1 024 values."""
FULL_LAYER = 20_000_000
"""Largest number of weights of a dense layer in one part."""
RANK = 384
EMBEDDING = 16
"""Learned values that stand for a class."""
SLOPE = 0.2


class DcganGenerator(nn.Module):
    """Noise to image: transposed convolutions that double the map, then a dense layer to the pixels.

    (B, latent) from N(0, I) and, for conditional models, class indices (B,) -> (B, 1, S, S) in [-1, 1].

    The mirror of the discriminator would go on doubling to S x S. Gubbi says that the last three layers
    differ and that the last one is dense, which removed pixelation, but gives no sizes. A dense layer from S
    x S to S x S has 268 M weights at S = 128. So the doubling ends at 32 x 32, and the last three layers are
    a 3 x 3 convolution, a 3 x 3 convolution to one map of 32 x 32 = 1 024 values, and the dense layer from
    these to all S x S pixels, in place of the remaining doublings. With width 64 and a latent of 100:

    ======================================  ===============  ==========
    layer                                   output           parameters
    ======================================  ===============  ==========
    4 x 4 transposed convolution            512 x 4 x 4         820 224
    three times 4 x 4, stride 2             64 x 32 x 32      2 753 408
    3 x 3 convolution                       64 x 32 x 32         36 992
    3 x 3 convolution, no norm              1 x 32 x 32             577
    dense, S = 128                          1 x 128 x 128    16 793 600
    ======================================  ===============  ==========

    20 404 801 parameters at 128, 7 809 601 at 64. At 256 a full dense layer has 67 M weights; it is replaced
    by two through 384 values without activation: 25 624 576, and 29 235 777 in all. This is the largest round
    rank that keeps the network below 30 M. BatchNorm and ReLU follow every layer but the last two; the output
    is a tanh.

    Args:
        image_size: S, a power of 2 from 16 up.
        latent: number of noise values.
        width: channels of the 32 x 32 map; each smaller map has twice as many.
        classes: number of classes; 0 for none. A class adds 16 learned values to the latent, see
            `common.networks.blocks`.
        upsample: ``transposed`` as published, or ``resize``, see `common.networks.blocks`.
        start: initial weights of the dense layer, see `DenseImage`.
    Raises:
        UserError: unknown size or layer.

    Example:
        >>> DcganGenerator(image_size=32, latent=8, width=4)(torch.randn(2, 8)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(
        self,
        image_size: int = 128,
        latent: int = 100,
        width: int = 64,
        classes: int = 0,
        upsample: str = "transposed",
        start: str = "bilinear",
    ) -> None:
        super().__init__()
        check_size(image_size)
        map_size = min(LARGEST_MAP, image_size // 2)
        doublings = int(math.log2(map_size // SMALLEST))
        widths = [width * 2 ** (doublings - level) for level in range(doublings + 1)]
        self.latent, self.classes = latent, classes
        self.embedding = class_embedding(classes, EMBEDDING)
        source = latent + (EMBEDDING if classes else 0)
        first = nn.ConvTranspose2d(source, widths[0], SMALLEST, bias=False)
        self.layers = nn.Sequential(
            _normed(first, widths[0]),
            *(
                _normed(upsampling_layer(upsample, wide, narrow, bias=False), narrow)
                for wide, narrow in pairwise(widths)
            ),
            _normed(nn.Conv2d(width, width, 3, padding=1, bias=False), width),
            nn.Conv2d(width, 1, 3, padding=1),
        )
        full = map_size**2 * image_size**2 <= FULL_LAYER
        self.dense = DenseImage(map_size, image_size, None if full else RANK, start)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Latents (B, latent) and, for conditional models, class indices (B,) -> images (B, 1, S, S)."""
        x = latent
        if condition is not None:
            x = torch.cat([latent, self.embedding(condition).to(latent.dtype)], dim=1)  # (B, latent + 16)
        x = self.layers(x.reshape(x.shape[0], x.shape[1], 1, 1))  # (B, 1, m, m)
        return torch.tanh(self.dense(x).float())

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Reads the sizes of the network that a state_dict belongs to, for error messages."""
        classes = len(state["embedding.table"]) if "embedding.table" in state else 0
        pixels = next(value for name, value in state.items() if name.startswith("dense.") and value.ndim == 1)
        latent = len(state["layers.0.0.weight"]) - (EMBEDDING if classes else 0)
        return {"latent size": latent, "image size": math.isqrt(len(pixels)), "number of classes": classes}


Generator = DcganGenerator | SkipExcitationGenerator
"""Generators that draw from noise; both have ``latent``, ``classes`` and ``embedding``."""


class DcganDiscriminator(nn.Module):
    """Image to one logit: 4 x 4 convolutions of stride 2 down to 4 x 4, and one over the rest.

    (B, 1, S, S) in [-1, 1] -> logits (B, 1, 1, 1). Widths are ``width`` times 1, 2, 4, 8, 8, ...; norm and
    LeakyReLU follow each layer but the last; the first has no norm. 6 958 913 parameters at S = 128 and width
    64.

    Args:
        image_size: S, a power of 2 from 16 up.
        width: channels of the first layer.
        norm: see `common.networks.blocks.norm_layer`. A gradient penalty needs one that does not couple the
            samples of a batch (Gulrajani et al. 2017): any but ``batch``.
        spectral: spectral normalisation of every layer (Miyato et al. 2018).
        classes: number of classes; 0 for none. The class enters by projection: the product of a learned
            vector with the mean of the last map is added to the logit (Miyato and Koyama 2018).
        deviation: give the last layer a map with the features' standard deviation over the batch, which shows
            mode collapse (Karras et al. 2018, "minibatch standard deviation").
    Raises:
        UserError: unknown size or norm.

    Example:
        >>> DcganDiscriminator(image_size=32, width=4)(torch.zeros(2, 1, 32, 32)).logits[0].shape
        torch.Size([2, 1, 1, 1])
    """

    def __init__(
        self,
        image_size: int = 128,
        width: int = 64,
        norm: str = "batch",
        spectral: bool = False,
        classes: int = 0,
        deviation: bool = False,
    ) -> None:
        super().__init__()
        check_size(image_size)
        halvings = int(math.log2(image_size // SMALLEST))
        widths = [1, *(width * min(2**level, 8) for level in range(halvings))]
        self.hidden = nn.ModuleList(
            halving(widths[level], widths[level + 1], norm if level else "none") for level in range(halvings)
        )
        self.last = nn.Conv2d(widths[-1] + deviation, 1, SMALLEST)
        self.projection = class_projection(classes, widths[-1])
        self.deviation = deviation
        if spectral:
            self.apply(normalise_spectrally)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Images (B, 1, S, S) and, for conditional models, class indices (B,) -> logits (B, 1, 1, 1)."""
        features = []
        x = image
        for layer in self.hidden:
            x = layer(x)
            features.append(x)
        logits = self.last(torch.cat([x, batch_deviation(x)], dim=1) if self.deviation else x)  # (B, 1, 1, 1)
        if condition is not None:
            fit = (self.projection(condition) * x.mean((2, 3))).sum(1)  # (B,)
            logits = logits + fit[:, None, None, None]
        return DiscriminatorOutput([logits], [features])


def batch_deviation(features: Tensor) -> Tensor:
    """Returns the mean standard deviation over the batch as a map: (B, C, h, w) -> (B, 1, h, w)."""
    deviation = (features.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    return deviation.expand(len(features), 1, *features.shape[2:])


def check_size(image_size: int) -> None:
    """Checks that doubling 4 x 4 gives the image size.

    Raises:
        UserError: it is not a power of 2 from 16 up.
    """
    if image_size < 4 * SMALLEST or image_size & (image_size - 1):
        raise UserError(f"image_size {image_size} does not fit the networks; take 64, 128 or 256")


def _normed(layer: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.ReLU())


def halving(source: int, target: int, norm: str) -> nn.Sequential:
    """Returns a layer (B, C, h, w) -> (B, D, h/2, w/2): convolution, norm, LeakyReLU."""
    convolution = nn.Conv2d(source, target, 4, stride=2, padding=1, bias=norm == "none")
    return nn.Sequential(convolution, norm_layer(norm, target), nn.LeakyReLU(SLOPE))


def normalise_spectrally(module: nn.Module) -> None:
    """Applies spectral normalisation to a convolution or dense layer."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        spectral_norm(module)
