"""Membership inference: can one who has the synthetic images tell whose images the model was trained on?

The attacker takes a real image for one of the training set the nearer its nearest synthetic image is (Chen et
al. 2020, GAN-Leaks: the full black-box attack). The area under the curve of all thresholds is the chance that
a training patient is nearer than a held-out one: 0.5 for a model that gives nothing away. An average hides
the few who are recognised with certainty, so the share of training patients recognised at a small share of
false alarms stands beside it (Carlini et al. 2022, membership inference from first principles).
Patients are the unit: a patient's distance is the mean over the patient's images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.random import generator

CHANCE = 0.5


def by_patient(values: Tensor, patients: Sequence[str]) -> Tensor:
    """The mean (P, ...) float64 of each patient's values (N, ...); patients in order of appearance."""
    names = {name: place for place, name in enumerate(dict.fromkeys(patients))}
    owners = torch.tensor([names[patient] for patient in patients])
    sums = torch.zeros(len(names), *values.shape[1:], dtype=torch.float64)
    counts = owners.bincount().view(-1, *[1] * (values.ndim - 1))
    return sums.index_add(0, owners, values.double()) / counts


def membership_auc(members: Tensor, others: Tensor, weights: Tensor | None = None) -> float:
    """The chance that a member is nearer to the synthetic images than another; equals count half.

    Args:
        members, others: distances (N,) and (M,) to the nearest synthetic image.
        weights: (N + M,) how often each counts, members first (bootstrap); once each by default.
    Returns:
        0 to 1; NaN where no member or no other counts.
    """
    here, there = _counted(members, others, weights)
    farther = there.sum() - there.cumsum(0)  # others that are farther than each level
    return float((here * (farther + there / 2)).sum() / (here.sum() * there.sum()))


def recognised(members: Tensor, others: Tensor, rate: float, weights: Tensor | None = None) -> float:
    """The share of members recognised where at most a share ``rate`` of others is taken for members (TPR at a
    given FPR).

    Args:
        members, others, weights: as `membership_auc`.
        rate: with fewer than 1 / ``rate`` others, none of them is.
    Returns:
        0 to 1; NaN where no member or no other counts.
    """
    here, there = _counted(members, others, weights)
    allowed = there.cumsum(0) <= rate * there.sum()
    return float((here * allowed).sum() / here.sum()) if there.any() else float("nan")


def membership(
    members: Tensor,
    others: Tensor,
    patients: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
    resamples: int = 500,
    rate: float | None = None,
) -> Value:
    """`membership_auc` of patients with its interval, or `recognised` at a ``rate``.

    Args:
        members, others: distances (N,) and (M,) of images.
        patients: of the members and of the others, one id an image.
    """

    def statistic(near: Tensor, far: Tensor, weights: Tensor | None = None) -> float:
        if rate is None:
            return membership_auc(near, far, weights)
        return recognised(near, far, rate, weights)

    near, far = by_patient(members, patients[0]), by_patient(others, patients[1])
    drawn = [
        Resamples.over(
            [f"{side} {k}" for k in range(len(part))],
            len(part),
            resamples,
            generator(seed, "membership", side),
        )
        for side, part in enumerate((near, far))
    ]
    both = drawn[0].beside(drawn[1])
    if rate is not None:  # it has jumps
        return both.percentile(lambda weights: statistic(near, far, weights))
    return both.distance(lambda weights: statistic(near, far, weights)).within(0, 1)


def roc(members: Tensor, others: Tensor) -> tuple[list[float], list[float]]:
    """The attack's curve: shares of others (M,) and of members (N,) that each threshold takes for members."""
    levels = torch.cat([members, others]).unique()
    shares = [
        torch.searchsorted(part.sort().values, levels, right=True).double() / len(part)
        for part in (others, members)
    ]
    false, true = ([0.0, *share.tolist()] for share in shares)
    return false, true


def _counted(members: Tensor, others: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """How many members and others there are at each distance, the smallest first."""
    levels, places = torch.cat([members, others]).unique(return_inverse=True)
    counts = torch.ones(len(places), dtype=torch.float64) if weights is None else weights.double()
    split = len(members)
    here, there = (
        torch.zeros(len(levels), dtype=torch.float64).index_add(0, places[part], counts[part])
        for part in (slice(0, split), slice(split, None))
    )
    return here, there
