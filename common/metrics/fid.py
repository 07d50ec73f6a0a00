"""Frechet distance between Gaussians fitted to features (FID; Heusel et al. 2017, equation 6).

MONAI's `FIDMetric` takes the square root of a product of covariances, which loses digits for few images, and
knows neither weights (for the bootstrap) nor streams.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor


class StreamingMoments:
    """Mean and scatter matrix of a stream of feature vectors, merged by batch (Chan, Golub & LeVeque 1979).

    Memory is one ``dimension`` x ``dimension`` float64 matrix, whatever the length of the stream. ``merge``
    joins the streams of several processes; ``state_dict`` holds only tensors.

    Args:
        dimension: length of a feature vector.
        device: where the sums are kept; the CPU for a device without float64 (MPS).

    Example:
        >>> moments = StreamingMoments(dimension=1)
        >>> for batch in ([[1.0], [2.0]], [[6.0]]):
        ...     moments.update(torch.tensor(batch))
        >>> moments.mean.tolist(), moments.covariance.tolist()
        ([3.0], [[7.0]])
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
        """Adds the statistics of another stream."""
        if int(other.count) == 0:
            return
        self._join(int(other.count), other.mean.to(self.mean))
        self.scatter += other.scatter.to(self.scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (D, D), float64; zeros for fewer than two vectors."""
        return self.scatter / max(int(self.count) - 1, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """``count``, ``mean`` and ``scatter``, a sufficient statistic of the stream."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Loads the result of ``state_dict``, on this object's device."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    def _join(self, count: int, mean: Tensor) -> None:
        """Moves count and mean; adds the scatter between the two means."""
        before, total = int(self.count), int(self.count) + count
        delta = mean - self.mean
        self.scatter.addr_(delta, delta, alpha=before * count / total)
        self.mean += delta * (count / total)
        self.count.fill_(total)


COLUMNS = 256  # multiplied at once, which saves a temporary of full size


def frechet_distance(real: StreamingMoments, fake: StreamingMoments) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), by symmetric eigen-decompositions in float64.

    Covariances may be rank-deficient. The scatter matrices, which are large, are not copied.

    Returns:
        The squared distance, at least 0; NaN if a feature is not finite.

    Example:
        >>> real, fake = StreamingMoments(dimension=1), StreamingMoments(dimension=1)
        >>> real.update(torch.tensor([[0.0], [2.0]]))
        >>> fake.update(torch.tensor([[3.0], [5.0]]))
        >>> round(frechet_distance(real, fake), 6)
        9.0
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
    factor = _square_root(first)
    product = torch.empty_like(factor)
    for start in range(0, len(product), COLUMNS):
        columns = slice(start, start + COLUMNS)
        product[:, columns] = factor.T @ (second @ factor[:, columns])
    del factor
    return torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum()


def _square_root(matrix: Tensor) -> Tensor:
    """W with W W^T = ``matrix`` (D, D), by Cholesky if the rank is full, else by eigen-decomposition."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if int(failed) == 0:
        return factor
    values, factor = torch.linalg.eigh(matrix)
    return factor.mul_(values.clamp_min(0).sqrt())


def fid(
    real: Tensor, fake: Tensor, weights: Tensor | None = None, fake_weights: Tensor | None = None
) -> float:
    """Computes the Frechet distance of two sets of features.

    tr (S1 S2)^1/2 is the nuclear norm of A B^T where S1 = A^T A and S2 = B^T B. Few samples of many
    dimensions thus need an n x m decomposition instead of D x D ones, and no digits are lost to a singular
    product. The value is biased upward for few samples: compare only sets of equal size.

    Args:
        real, fake: (N, D) and (M, D).
        weights, fake_weights: how often each row counts (bootstrap); once by default, ``fake_weights`` as
            ``weights``.

    Example:
        >>> real = torch.tensor([[0.0], [2.0]])
        >>> round(fid(real, real + 3), 6)
        9.0
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
    """The weighted mean (D,) and A (n, D), A^T A the unbiased weighted covariance, of the n rows used."""
    used = weights > 0
    rows, counts = features[used].double(), weights[used].double().to(features.device)[:, None]
    total = counts.sum()
    mean = (rows * counts).sum(0) / total
    return mean, (rows - mean) * (counts / (total - 1).clamp_min(1)).sqrt()


def _short(factor: Tensor) -> Tensor:
    """Computes a factor of the same covariance with at most D rows."""
    rows, columns = factor.shape
    return factor if rows <= columns else torch.linalg.qr(factor, mode="r").R
