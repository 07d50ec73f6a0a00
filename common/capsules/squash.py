"""The capsules' activation: keeps the direction, brings the length below 1."""

from __future__ import annotations

from torch import Tensor

TINY = 1e-12
"""Keeps the root off zero, where its gradient is infinite."""


def squash(vectors: Tensor) -> Tensor:
    """s |s| / (1 + |s|^2) over the last dimension (Sabour et al. 2017, equation 1): (..., D) -> (..., D).

    A zero vector stays zero; gradients of any order are finite there.
    """
    squared = vectors.square().sum(-1, keepdim=True)  # (..., 1)
    return vectors * ((squared + TINY).sqrt() / (1 + squared))


def lengths(capsules: Tensor) -> Tensor:
    """The lengths of capsules, with finite gradients at zero: (..., D) -> (...)."""
    return (capsules.square().sum(-1) + TINY).sqrt()
