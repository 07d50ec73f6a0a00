"""The margin loss on the lengths of capsules; `common.losses.adversarial` makes a game of it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

PRESENT, ABSENT = 0.9, 0.1
"""Lengths from which on, or up to which, nothing is to be paid."""
DOWN_WEIGHT = 0.5
"""Of absent classes, so that early learning does not shrink all capsules."""


def present_margin(lengths: Tensor) -> Tensor:
    """What a capsule pays whose entity is there: (...) -> (...)."""
    return functional.relu(PRESENT - lengths).square()


def absent_margin(lengths: Tensor) -> Tensor:
    """What a capsule pays whose entity is absent: (...) -> (...)."""
    return DOWN_WEIGHT * functional.relu(lengths - ABSENT).square()


def margin_loss(lengths: Tensor, target: Tensor) -> Tensor:
    """Sabour et al. 2017, equation 4: summed over classes, mean over the batch; a scalar.

    Args:
        lengths: (B, J) of the classes' capsules, 0 to 1.
        target: (B,) class indices.
    """
    present = functional.one_hot(target, lengths.shape[1]).to(lengths.dtype)  # (B, J)
    terms = present * present_margin(lengths) + (1 - present) * absent_margin(lengths)
    return terms.sum(1).mean()
