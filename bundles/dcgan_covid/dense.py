"""The generator's last layer: every pixel of the image from every value of a small map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError

STARTS = ("bilinear", "random")
NOISE = 1 / 512
"""Standard deviation of the noise on a bilinear start, per weight: 0.06 a pixel for 1 024 values N(0, 1)."""


class DenseImage(nn.Sequential):
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
        if start not in STARTS:
            raise UserError(f"start {start!r} is unknown; choose {' or '.join(STARTS)}")
        values, pixels = map_size**2, image_size**2
        layers = (
            [nn.Linear(values, pixels)]
            if rank is None
            else [nn.Linear(values, rank, bias=False), nn.Linear(rank, pixels)]
        )
        super().__init__(nn.Flatten(), *layers, nn.Unflatten(1, (1, image_size, image_size)))
        if start == "bilinear":
            self._begin_bilinear(layers, map_size, image_size)

    @torch.no_grad()
    def _begin_bilinear(self, layers: list[nn.Linear], map_size: int, image_size: int) -> None:
        rows = bilinear_weights(map_size, image_size)  # (S, m)
        if len(layers) == 1:
            weights = [torch.kron(rows, rows)]  # (S S, m m)
        else:
            weights = list(reversed(separable_factors(rows, layers[0].out_features)))
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.copy_(weight).add_(torch.randn_like(weight), alpha=NOISE)
        nn.init.zeros_(layers[-1].bias)


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
