"""The generator's last layer: every pixel of the image from every value of a small map."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError

STARTS = ("bilinear", "random")
PACE = 4
"""How much smaller still the values are. 1, 4 and 16 gave a FID of 2.8, 2.3 and 5.6 (64 x 64, 390
iterations).
"""
NOISE = 1 / 16
"""Of a bilinear start, as a share of a random one: its standard deviation on a pixel, for values N(0, 1)."""


class PacedLinear(nn.Linear):
    """A dense layer with large weights that meets small values: (B, n) -> (B, m).

    Adam moves every weight by the learning rate at every step, whatever its gradient. A pixel with 1 024
    weights of its own would be thrown about, each pixel elsewhere, and the images were noise. Here weights
    are drawn from N(0, `PACE`) and values are divided by `PACE` and the square root of their number: what
    comes out is N(0, 1) again, and a step moves it by so much less ("equalised learning rate", Karras et al.
    2018, section 4.1).
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
        """Makes it a given map (m, n), plus what a random one has of `NOISE`."""
        self.weight.mul_(NOISE).add_(matrix, alpha=1 / self.scale)


class DenseImage(nn.Module):
    """A dense layer from a feature map to an image: (B, 1, m, m) -> (B, 1, S, S).

    Args:
        map_size: m; the map has m x m values.
        image_size: S.
        rank: values between, of a layer in two parts without activation; None for one full layer of
            m x m x S x S weights.
        start: first weights: ``bilinear`` upsampling plus a little noise, so that training begins with smooth
            images of m x m pixels and learns what lies between them, or ``random``.
    Raises:
        UserError: no such start.
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
    """Linear interpolation of ``source`` values at ``target`` places, edges repeated: (target, source)."""
    unit = torch.eye(source)[None]  # (1, source, source)
    return nn.functional.interpolate(unit, size=target, mode="linear", align_corners=False)[0].T.contiguous()


def separable_factors(rows: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of rank r of ``kron(rows, rows)``: (S S, r) and (r, m m) whose product comes closest.

    The singular values of a Kronecker product are the products of its factors': the r largest are taken.
    """
    left, values, right = np.linalg.svd(rows.double().numpy(), full_matrices=False)  # (S, m), (m,), (m, m)
    order = np.argsort(-np.outer(values, values).ravel(), kind="stable")[:rank]
    first, second = np.divmod(order, len(values))
    scale = np.sqrt(values[first] * values[second])  # (r,)
    outer = np.einsum("ir,jr->ijr", left[:, first], left[:, second]).reshape(-1, len(order))  # (S S, r)
    inner = np.einsum("ri,rj->rij", right[first], right[second]).reshape(len(order), -1)  # (r, m m)
    return torch.from_numpy(outer * scale).float(), torch.from_numpy(scale[:, None] * inner).float()
