"""KID, precision, recall, density and coverage written plainly in numpy: every matrix whole, in float64."""

from __future__ import annotations

import numpy as np


def plain_kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Features (N, D) and (M, D)."""

    def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return (first @ second.T / first.shape[1] + 1) ** 3

    def within(features: np.ndarray) -> float:
        values, count = kernel(features, features), len(features)
        return float((values.sum() - np.trace(values)) / (count * (count - 1)))

    return within(real) + within(fake) - 2 * float(kernel(real, fake).mean())


def plain_prdc(real: np.ndarray, fake: np.ndarray, k: int) -> dict[str, float]:
    """Features (N, D) and (M, D)."""
    real_radii, fake_radii = radii(real, k), radii(fake, k)
    apart = distances(real, fake)  # (N, M)
    in_real, in_fake = apart < real_radii[:, None], apart < fake_radii
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float(in_fake.any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float(in_real.any(1).mean()),
    }


def radii(features: np.ndarray, k: int) -> np.ndarray:
    """The distance to the k-th nearest other vector; the nearest of all is the vector itself."""
    return np.partition(distances(features, features), k, axis=1)[:, k]


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of all pairs: (N, M)."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0))
