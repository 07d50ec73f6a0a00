"""KID, precision, recall, density and coverage written plainly in numpy: every matrix whole, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def plain_kid(
    real: np.ndarray,
    fake: np.ndarray,
    real_patients: Sequence[str] | None = None,
    fake_patients: Sequence[str] | None = None,
) -> float:
    """Features (N, D) and (M, D), over pairs of different patients; None for each image its own."""
    names = _names(real_patients, len(real), "r"), _names(fake_patients, len(fake), "f")

    def mean(first: np.ndarray, second: np.ndarray, here: np.ndarray, there: np.ndarray) -> float:
        kernel = (first @ second.T / first.shape[1] + 1) ** 3
        return float(kernel[here[:, None] != there].mean())

    within = mean(real, real, names[0], names[0]) + mean(fake, fake, names[1], names[1])
    return within - 2 * mean(real, fake, *names)


def plain_prdc(
    real: np.ndarray,
    fake: np.ndarray,
    k: int,
    real_patients: Sequence[str] | None = None,
    fake_patients: Sequence[str] | None = None,
) -> dict[str, float]:
    """Features (N, D) and (M, D); a patient's own images are neither neighbours nor reached."""
    here, there = _names(real_patients, len(real), "r"), _names(fake_patients, len(fake), "f")
    real_radii, fake_radii = radii(real, k, here), radii(fake, k, there)
    apart = np.where(here[:, None] == there, np.inf, distances(real, fake))  # (N, M)
    in_real, in_fake = apart < real_radii[:, None], apart < fake_radii
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float(in_fake.any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float(in_real.any(1).mean()),
    }


def radii(features: np.ndarray, k: int, names: np.ndarray) -> np.ndarray:
    """The distance to the k-th nearest vector of another patient."""
    apart = np.where(names[:, None] == names, np.inf, distances(features, features))
    return np.partition(apart, k - 1, axis=1)[:, k - 1]


def _names(patients: Sequence[str] | None, count: int, side: str) -> np.ndarray:
    return np.asarray([f"{side}{place}" for place in range(count)] if patients is None else list(patients))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of all pairs: (N, M)."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0))
