"""The generator's last layer: every pixel of the image from every value of a small map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError

STARTS = ("bilinear", "random")
NOISE = 1 / 16
"""Of a bilinear start, as a share of a random one: its standard deviation on a pixel, for values N(0, 1)."""


class DenseImage(nn.Module):
    """A dense layer from a feature map to an image: (B, 1, m, m) -> (B, 1, S, S).

    Each pixel has m x m weights of its own. Adam moves every weight by the learning rate at every step,
    whatever its gradient: together a pixel's weights would throw it about, each pixel elsewhere, and the
    images were noise. So the weights are kept large and the values that they meet small, by the square root
    of their number ("equalised learning rate", Karras et al. 2018, section 4.1): a step moves a pixel by so
    much less.

    Args:
        map_size: m; the map has m x m values.
        image_size: S.
        rank: values between, of a layer in two parts without activation; None for one full layer of
            m x m x S x S weights.
        start: first weights: ``bilinear`` upsampling plus a little noise, so that training begins with smooth
            images of m x m pixels and learns what lies between them, or ``random``, N(0, 1) / m.
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
        self.image_size, self.scale = image_size, 1 / map_size
        self.inner = nn.Identity() if rank is None else nn.Linear(values, rank, bias=False)
        self.outer = nn.Linear(values if rank is None else rank, pixels)
        self._begin(map_size, start)

    def forward(self, features: Tensor) -> Tensor:
        """(B, 1, m, m) -> (B, 1, S, S)."""
        values = features.flatten(1) * self.scale  # (B, m m)
        return self.outer(self.inner(values)).reshape(-1, 1, self.image_size, self.image_size)

    @torch.no_grad()
    def _begin(self, map_size: int, start: str) -> None:
        layers = [layer for layer in (self.inner, self.outer) if isinstance(layer, nn.Linear)]
        for layer in layers:
            nn.init.normal_(layer.weight)
        nn.init.zeros_(self.outer.bias)
        if start == "random":
            return
        rows = bilinear_weights(map_size, self.image_size)  # (S, m)
        rank = layers[0].out_features
        weights = [torch.kron(rows, rows)] if len(layers) == 1 else separable_factors(rows, rank)[::-1]
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.mul_(NOISE).add_(weight, alpha=map_size ** (1 / len(layers)))


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
