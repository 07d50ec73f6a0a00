"""How much of the lung is ill, slice by slice, as classes from none to severe."""

from __future__ import annotations

import numpy as np

SEVERITIES = ("none", "mild", "moderate", "severe")
MILD, MODERATE = 0.05, 0.15
"""Largest share of a slice's lung that lesions cover in ``mild`` and ``moderate``.

Radiological scores have their first step at 5 % as well (Pan et al. 2020); 15 % parts the phantoms' other
slices about 2 to 1.
"""
LEAST_LUNG = 0.05
"""Slices with a smaller share of lung are left out: shoulders, and the abdomen below."""


def severity_of(share: float) -> str:
    """The class of a slice by the share of its lung, 0 to 1, that lesions cover."""
    if share <= 0:
        return SEVERITIES[0]
    return SEVERITIES[1] if share < MILD else SEVERITIES[2] if share < MODERATE else SEVERITIES[3]


def lung_slices(lung: np.ndarray, lesion: np.ndarray, least: float = LEAST_LUNG) -> dict[int, str]:
    """The slices that show lung, each with its severity.

    Args:
        lung, lesion: label maps (H, W, D); lung is wherever the first is not 0, lesion wherever both are not.
        least: smallest share of a slice that must be lung.
    """
    areas = (lung > 0).sum((0, 1))  # (D,)
    ill = ((lesion > 0) & (lung > 0)).sum((0, 1))  # (D,)
    shown = np.flatnonzero(areas >= max(1.0, least * lung.shape[0] * lung.shape[1]))
    return {int(index): severity_of(ill[index] / areas[index]) for index in shown}
