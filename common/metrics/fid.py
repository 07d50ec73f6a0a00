"""Frechet distance between Gaussians fitted to features (FID; Heusel et al. 2017, equation 6)."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor


class StreamingMoments:
    """Mean and scatter of a stream of feature vectors, merged batch-wise (Chan, Golub & LeVeque 1979).

    Holds one ``dimension`` x ``dimension`` float64 matrix however long the stream is. Streams of several
    processes are joined by ``merge``; ``state_dict`` holds tensors only.

    Args:
        dimension: length of a feature vector.
        device: where the sums are kept; a device without float64 (MPS) should keep them on the CPU.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self.mean = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Adds a batch of features (B, dimension)."""
        if len(features) == 0:
            return
        batch = features.detach().to(self.mean)  # (B, D)
        mean = batch.mean(0)
        centred = batch - mean
        self._join(len(features), mean)
        self.scatter.addmm_(centred.T, centred)

    @torch.no_grad()
    def merge(self, other: Self) -> None:
        """Adds another stream's statistics, as if its features had been seen here."""
        if int(other.count) == 0:
            return
        self._join(int(other.count), other.mean.to(self.mean))
        self.scatter += other.scatter.to(self.scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (D, D), float64; zeros for fewer than two vectors."""
        return self.scatter / max(int(self.count) - 1, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """``count``, ``mean`` and ``scatter``: a sufficient statistic of everything seen."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave, on this object's device."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    def _join(self, count: int, mean: Tensor) -> None:
        """Moves count and mean; adds the scatter between the two means."""
        seen, total = int(self.count), int(self.count) + count
        delta = mean - self.mean
        self.scatter.addr_(delta, delta, alpha=seen * count / total)
        self.mean += delta * (count / total)
        self.count.fill_(total)


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
