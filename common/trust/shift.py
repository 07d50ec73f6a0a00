"""Domain shift: do the held-out images come from elsewhere than the training images, another hospital say?

Then they say little of how near images like the training images may come to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.random import generator
from common.trust.membership import by_patient

SPLITS = 499
"""Splits of the patients at random; 499 and the true one make the p-value a multiple of 1/500."""
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Shift:
    """How far apart the two sets' mean patients are.

    Attributes:
        ratio: the squared distance as a multiple of the usual one, of parts of the same size that are split
            at random by patient.
        p_value: of the test.
    """

    ratio: float
    p_value: float

    @property
    def found(self) -> bool:
        """Whether it is more than chance."""
        return self.p_value < SIGNIFICANT


def domain_shift(
    training: Tensor, heldout: Tensor, patients: tuple[Sequence[str], Sequence[str]], seed: int = 0
) -> Shift:
    """A permutation test over patients: the squared distance of the sets' means, against random splits.

    Args:
        training, heldout: features (N, D) and (M, D).
        patients: of both, one id an image; each patient counts once.
    """
    means = torch.cat([by_patient(training, patients[0]), by_patient(heldout, patients[1])])
    means = (means - means.mean(0)) / means.std(0).clamp(min=1e-6)  # (P, D)
    trained = len(set(patients[0]))
    numbers = generator(seed, "shift")
    sides = torch.zeros(1 + SPLITS, len(means), dtype=torch.float64)
    sides[0, :trained] = 1
    for row in sides[1:]:
        row[torch.from_numpy(numbers.permutation(len(means))[:trained])] = 1
    weights = sides / trained - (1 - sides) / (len(means) - trained)  # (1 + SPLITS, P)
    apart = (weights @ means).square().sum(1)
    usual = apart[1:].median().clamp(min=torch.finfo(torch.float64).tiny)
    return Shift(float(apart[0] / usual), float((apart >= apart[0]).double().mean()))
