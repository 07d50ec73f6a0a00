"""Frechet distance between Gaussians fitted to features (FID; Heusel et al. 2017, equation 6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from common.metrics.statistics import StreamingMoments

COLUMNS = 256


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), by symmetric eigen-decompositions in float64.

    Args:
        mean1, mean2: (D,).
        covariance1, covariance2: (D, D), symmetric and positive semi-definite; may be rank-deficient.
    Returns:
        The squared distance, at least 0; NaN where a feature was NaN or infinite.
    """
    first, second = covariance1.double(), covariance2.double()
    apart = (mean1.double() - mean2.double()).square().sum() + first.trace() + second.trace()
    if not apart.isfinite():
        return math.nan
    return max(0.0, float(apart - 2 * trace_of_root(first, second)))


def moments_distance(real: StreamingMoments, fake: StreamingMoments) -> float:
    """`frechet_distance` of two streams without copies of their scatter matrices.

    Two accumulators of 2 048 dimensions and their distance stay within 200 MB.
    """
    first, second = max(int(real.count) - 1, 1), max(int(fake.count) - 1, 1)
    offset = (real.mean - fake.mean).square().sum()
    apart = offset + real.scatter.trace() / first + fake.scatter.trace() / second
    if not apart.isfinite():
        return math.nan
    return max(0.0, float(apart - 2 * trace_of_root(real.scatter, fake.scatter) / (first * second) ** 0.5))


def trace_of_root(first: Tensor, second: Tensor) -> Tensor:
    """tr (S1^1/2 S2 S1^1/2)^1/2 of positive semi-definite matrices (D, D).

    With any factor S1 = W W^T the matrix W^T S2 W has the same eigenvalues: no square root is needed.
    """
    factor = factored(first)
    product = torch.empty_like(factor)
    for start in range(0, len(product), COLUMNS):  # in slices: one temporary of full size less
        columns = slice(start, start + COLUMNS)
        product[:, columns] = factor.T @ (second @ factor[:, columns])
    del factor
    return torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum()


def factored(matrix: Tensor) -> Tensor:
    """W with W W^T = ``matrix`` (D, D): Cholesky's where the rank is full, else by eigen-decomposition."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed) == 0:
        return factor
    values, factor = torch.linalg.eigh(matrix)
    return factor.mul_(values.clamp_min(0).sqrt())


def fid(
    real: Tensor, fake: Tensor, weights: Tensor | None = None, fake_weights: Tensor | None = None
) -> float:
    """The Frechet distance of two sets of features, from the features themselves.

    tr (S1 S2)^1/2 is the nuclear norm of A B^T where S1 = A^T A and S2 = B^T B, so few samples of many
    dimensions cost an n x m decomposition instead of D x D ones, and nothing is lost to a singular product.
    The value is biased upward for few samples: compare only values of the same number of samples.

    Args:
        real, fake: (N, D) and (M, D).
        weights, fake_weights: how often each row counts (bootstrap); once each by default, `fake_weights` as
            `weights`.
    """
    weights = torch.ones(len(real)) if weights is None else weights
    fake_weights = _default_weights(fake, weights) if fake_weights is None else fake_weights
    mean1, factor1 = _factor(real, weights)
    mean2, factor2 = _factor(fake, fake_weights)
    apart = (mean1 - mean2).square().sum() + factor1.square().sum() + factor2.square().sum()
    if not apart.isfinite():
        return math.nan
    return max(0.0, float(apart - 2 * torch.linalg.svdvals(_short(factor1) @ _short(factor2).T).sum()))


def _default_weights(features: Tensor, weights: Tensor) -> Tensor:
    return weights if len(weights) == len(features) else torch.ones(len(features))


def _factor(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean (D,) and rows A (n, D), A^T A the unbiased weighted covariance; unused rows drop."""
    used = weights > 0
    rows, counts = features[used].double(), weights[used].double().to(features.device)[:, None]
    total = counts.sum()
    mean = (rows * counts).sum(0) / total
    return mean, (rows - mean) * (counts / (total - 1).clamp_min(1)).sqrt()


def _short(factor: Tensor) -> Tensor:
    """A factor of the same covariance with at most D rows."""
    rows, columns = factor.shape
    return factor if rows <= columns else torch.linalg.qr(factor, mode="r").R
