"""How different generated images are from each other: likeness and distance of pairs, number of modes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value
from common.metrics.images import MS_SSIM_SMALLEST, SSIM_SMALLEST, ms_ssim, ssim
from common.metrics.pairs import squared_distances

PAIRS = 500  # compared at most
BATCH = 32  # pairs at once


@dataclass(frozen=True)
class PairValues:
    """A value of each of some pairs of images.

    Attributes:
        pairs: (P, 2) indices.
        values: (P,) float64.
    """

    pairs: Tensor
    values: Tensor

    def mean(self) -> float:
        """Over the pairs."""
        return float(self.values.mean())

    def interval(self, resamples: Resamples) -> Value:
        """The mean with its bootstrap interval over images: a pair counts as often as both of its images."""
        return resamples.distance(self._weighted)

    def _weighted(self, weights: Tensor) -> float:
        both = weights.double()[self.pairs].prod(1)
        return float(both @ self.values / both.sum())


def drawn_pairs(images: int, numbers: np.random.Generator, most: int = PAIRS) -> Tensor:
    """Different unordered pairs of ``images`` images, all of them or ``most`` drawn ones: (P, 2).

    Raises:
        UserError: fewer than two images.
    """
    if images < 2:
        raise UserError(f"{images} images make no pair; at least 2 are needed to measure diversity")
    every = images * (images - 1) // 2
    drawn = np.arange(every) if every <= most else np.sort(numbers.choice(every, most, replace=False))
    larger = ((1 + np.sqrt(1 + 8 * drawn)) // 2).astype(np.int64)  # pair t is (j, t - j (j - 1) / 2)
    return torch.from_numpy(np.stack([drawn - larger * (larger - 1) // 2, larger], axis=1))


def similarity_name(size: int) -> str:
    """Which similarity suits images whose shorter side is ``size`` pixels: ``ms_ssim`` or ``ssim``.

    Raises:
        UserError: too small for either.
    """
    if size < SSIM_SMALLEST:
        raise UserError(f"images of {size} pixels are too small for SSIM; {SSIM_SMALLEST} are needed")
    return "ms_ssim" if size >= MS_SSIM_SMALLEST else "ssim"


@torch.inference_mode()
def similarities(images: Tensor, pairs: Tensor) -> PairValues:
    """MS-SSIM of pairs (Odena et al. 2017), SSIM where images are too small; 1 for equal ones.

    Lower is more diverse.

    Args:
        images: (N, 1, H, W) in [-1, 1].
        pairs: (P, 2), see `drawn_pairs`.
    """
    measure = {"ms_ssim": ms_ssim, "ssim": ssim}[similarity_name(min(images.shape[-2:]))]
    found = [measure(images[first].float(), images[second].float()) for first, second in _batches(pairs)]
    return PairValues(pairs, torch.cat(found).double())


def feature_distances(features: Tensor, pairs: Tensor) -> PairValues:
    """Euclidean distances of pairs of features (N, D); higher is more diverse."""
    found = [squared_distances(features[first], features[second]) for first, second in _batches(pairs)]
    return PairValues(pairs, torch.cat(found).sqrt())


def _batches(pairs: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(part[:, 0], part[:, 1]) for part in pairs.split(BATCH)]
