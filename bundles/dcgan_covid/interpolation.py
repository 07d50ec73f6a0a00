"""Ways from one latent to another (paper C, section IV)."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import UserError

PARALLEL = 1e-4
"""Sine of the angle below which the arc between two directions is not told from the line, or not defined."""


def linear(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """The straight line, as the paper has it: latents (L,) at ``shares`` (N,) of the way -> (N, L).

    In high dimensions the middle between two draws from N(0, I) is shorter than any draw: 0.7 of the usual
    norm, where the generator has seen nothing.
    """
    return torch.lerp(start[None], end[None], shares[:, None])  # (N, L)


def spherical(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """The great arc (Shoemake 1985): (L,), (L,), (N,) -> (N, L); it keeps the norm where both have the same.

    Raises:
        UserError: the ends lie opposite each other, or one is zero: there is no such arc.
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1, 1)
    angle = cosine.acos()
    if angle.sin() < PARALLEL:
        if cosine <= 0:
            raise UserError("no arc joins two latents opposite each other; take --path linear")
        return linear(start, end, shares)
    weights = torch.stack([(1 - shares) * angle, shares * angle]).sin() / angle.sin()  # (2, N)
    return weights[0, :, None] * start + weights[1, :, None] * end  # (N, L)


PATHS = {"linear": linear, "spherical": spherical}


def interpolate(start: Tensor, end: Tensor, steps: int, path: str = "linear") -> Tensor:
    """Latents (steps, L) from ``start`` (L,) to ``end`` (L,), both included, at equal shares of the way.

    Raises:
        UserError: no such path, fewer than two steps, or no such arc.
    """
    check_path(path)
    if steps < 2:
        raise UserError(f"steps {steps}: a walk has two ends; take at least 2")
    return PATHS[path](start, end, torch.linspace(0, 1, steps, device=start.device))


def check_path(path: str) -> None:
    """Refuses a path that is not in `PATHS`.

    Raises:
        UserError: no such path.
    """
    if path not in PATHS:
        raise UserError(f"path {path!r} is unknown; choose {' or '.join(PATHS)}")
