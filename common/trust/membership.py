"""Membership inference: can one who has the synthetic images tell whose images the model was trained on?

The attacker takes a real image for one of the training set the nearer its nearest synthetic image is (Chen et
al. 2020, GAN-Leaks: the full black-box attack). The area under the curve of all thresholds is the chance that
a training image is nearer than a held-out one: 0.5 for a model that gives nothing away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.random import generator

CHANCE = 0.5


def membership_auc(members: Tensor, others: Tensor, weights: Tensor | None = None) -> float:
    """The chance that a member is nearer to the synthetic images than another image; equals count half.

    Args:
        members, others: distances (N,) and (M,) to the nearest synthetic image.
        weights: (N + M,) how often each image counts, members first (bootstrap); once each by default.
    Returns:
        0 to 1; NaN where no member or no other image counts.
    """
    levels, places = torch.cat([members, others]).unique(return_inverse=True)
    counts = torch.ones(len(places), dtype=torch.float64) if weights is None else weights.double()
    split = len(members)
    here, there = (
        torch.zeros(len(levels), dtype=torch.float64).index_add(0, places[part], counts[part])
        for part in (slice(0, split), slice(split, None))
    )
    farther = there.sum() - there.cumsum(0)  # others that are farther than each level
    return float((here * (farther + there / 2)).sum() / (here.sum() * there.sum()))


def membership(
    members: Tensor,
    others: Tensor,
    patients: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
    resamples: int = 500,
) -> Value:
    """`membership_auc` with its interval over patients.

    Args:
        patients: of the members and of the others, one id an image.
    """
    drawn = [
        Resamples.over(ids, len(ids), resamples, generator(seed, "membership", side))
        for side, ids in enumerate(patients)
    ]
    both = drawn[0].beside(drawn[1])
    return both.distance(lambda weights: membership_auc(members, others, weights)).within(0, 1)


def roc(members: Tensor, others: Tensor) -> tuple[list[float], list[float]]:
    """The attack's curve: shares of others and of members that each threshold takes for members."""
    levels = torch.cat([members, others]).unique()
    shares = [
        torch.searchsorted(part.sort().values, levels, right=True).double() / len(part)
        for part in (others, members)
    ]
    false, true = ([0.0, *share.tolist()] for share in shares)
    return false, true
