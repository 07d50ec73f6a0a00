"""Ways from one latent to another (paper C, section IV)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

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
    cosine = cosine_similarity(start.double(), end.double(), dim=0).clamp(-1, 1)
    angle = cosine.acos()
    apart = bool(angle.sin() >= PARALLEL)
    if not (apart or cosine > 0) or not (start.any() and end.any()):
        raise UserError("no arc joins latents opposite each other, or zero; take --path linear")
    if not apart:
        return linear(start, end, shares)
    weights = torch.stack([(1 - shares) * angle, shares * angle]).sin() / angle.sin()  # (2, N)
    first, second = weights.to(start.dtype)[..., None]  # (N, 1) each
    return first * start + second * end  # (N, L)


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
