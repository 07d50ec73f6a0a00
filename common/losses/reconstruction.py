"""Distances between a generated image and its target, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from common.errors import UserError

RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
    "smooth_l1": functional.smooth_l1_loss,
}


def reconstruction_loss(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The distance of that name, a function of (generated, target) that gives the mean over all elements.

    Raises:
        UserError: no such distance.
    """
    if kind not in RECONSTRUCTIONS:
        names = ", ".join(RECONSTRUCTIONS)
        raise UserError(f"reconstruction loss '{kind}' is unknown; choose one of {names}")
    return RECONSTRUCTIONS[kind]
