"""Kernel distance of features (KID; Binkowski et al. 2018): unbiased, so fit for small test sets."""

from __future__ import annotations

import torch
from torch import Tensor


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """(x . y / D + 1)^3 for all pairs of rows (Binkowski et al. 2018, section 4): (N, M) float64."""
    return (first.double() @ second.double().T / first.shape[1] + 1) ** 3


def kid(real: Tensor, fake: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3); may be below 0.

    Args:
        real, fake: features (N, D) and (M, D), at least two rows each.
    """
    kernels = Kernels(real, fake)
    return kernels.discrepancy(torch.ones(len(real)), torch.ones(len(fake)))


class Kernels:
    """The kernel matrices of two sets, computed once, for many weightings of their rows (bootstrap)."""

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        self.within_real = polynomial_kernel(real, real).fill_diagonal_(0)
        self.within_fake = polynomial_kernel(fake, fake).fill_diagonal_(0)
        self.between = polynomial_kernel(real, fake)

    def discrepancy(self, real_weights: Tensor, fake_weights: Tensor) -> float:
        """The discrepancy where rows count ``real_weights`` (N,) and ``fake_weights`` (M,) times.

        A row is never paired with its own copy: copies would look like agreement within a set.
        """
        real, fake = real_weights.double(), fake_weights.double()
        return float(
            _mean_pair(self.within_real, real)
            + _mean_pair(self.within_fake, fake)
            - 2 * (real @ self.between @ fake) / (real.sum() * fake.sum())
        )


def _mean_pair(kernel: Tensor, weights: Tensor) -> Tensor:
    """The mean over pairs of different rows; the kernel's diagonal is 0."""
    pairs = weights.sum() ** 2 - weights.square().sum()
    return weights @ kernel @ weights / pairs.clamp_min(1)
