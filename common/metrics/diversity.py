"""How different generated images are from each other: likeness and distance of pairs, shared texture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value
from common.metrics.images import MS_SSIM_SMALLEST, SSIM_SMALLEST, ms_ssim, ssim
from common.metrics.pairs import squared_distances

PAIRS = 500  # compared at most
BATCH = 32  # pairs at once
DRAWN = 8  # times as many pairs are drawn where those of one patient do not count
SMALLEST = 1e-4  # length of a texture that is more than rounding
FINE = 1.5  # pixels: texture is what a Gaussian of this standard deviation takes away


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
        """The mean with its interval: a pair counts where both of its images do."""
        return resamples.distance(self._weighted)

    def _weighted(self, weights: Tensor) -> float:
        both = weights.double()[self.pairs].prod(1)
        return float(both @ self.values / both.sum())


def drawn_pairs(
    images: int,
    numbers: np.random.Generator,
    most: int = PAIRS,
    patients: Sequence[str] | None = None,
) -> Tensor:
    """Different unordered pairs of ``images`` images, all of them or ``most`` drawn ones: (P, 2).

    Args:
        patients: one id an image: pairs of one patient's images are left out, which are alike for that.
    Raises:
        UserError: fewer than two images.
    """
    if images < 2:
        raise UserError(f"{images} images make no pair; at least 2 are needed to measure diversity")
    every = images * (images - 1) // 2
    wanted = most if patients is None else most * DRAWN
    drawn = np.arange(every) if every <= wanted else np.sort(numbers.choice(every, wanted, replace=False))
    larger = ((1 + np.sqrt(1 + 8 * drawn)) // 2).astype(np.int64)  # pair t is (j, t - j (j - 1) / 2)
    pairs = np.stack([drawn - larger * (larger - 1) // 2, larger], axis=1)
    if patients is not None:
        names = np.asarray(patients, dtype=np.str_)[pairs]
        pairs = pairs[names[:, 0] != names[:, 1]]
        if len(pairs) > most:
            pairs = pairs[np.sort(numbers.choice(len(pairs), most, replace=False))]
    return torch.from_numpy(pairs)


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
    return PairValues(pairs, torch.cat([*found, torch.zeros(0)]).double())


def feature_distances(features: Tensor, pairs: Tensor) -> PairValues:
    """Euclidean distances of pairs of features (N, D); higher is more diverse."""
    found = [squared_distances(features[first], features[second]) for first, second in _batches(pairs)]
    return PairValues(pairs, torch.cat([*found, torch.zeros(0, dtype=torch.float64)]).sqrt())


def texture_correlation(images: Tensor, patients: Sequence[str], resamples: Resamples) -> Value:
    """How much of the fine texture images of different patients share: the mean correlation of their pairs.

    About 0.04 for real lung slices, which share their outline; a generator that draws the same vessels or the
    same noise into every patient reaches 0.3 to 0.7, one image for all 1. All pairs are taken.

    Args:
        images: (N, 1, H, W).
        patients: one id an image: of the mask that a generated image was made from.
        resamples: of the images, in which a patient's images are drawn together.
    """
    total = len(resamples.stratum_of_part)
    sums = torch.zeros(total, images[0].numel(), dtype=torch.float64)  # (P, H * W)
    own, counts = torch.zeros(total, 2, dtype=torch.float64), torch.zeros(total, dtype=torch.float64)
    places: dict[str, list[int]] = {}
    for place, patient in enumerate(patients):
        places.setdefault(patient, []).append(place)
    for rows in places.values():
        part = int(resamples.parts[rows[0]])
        found = torch.zeros_like(sums[part])
        for some in torch.tensor(rows).split(BATCH):
            found += textures(images[some]).double().sum(0)
        sums[part] += found
        own[part] += torch.tensor([float(found @ found), len(rows) ** 2], dtype=torch.float64)
        counts[part] += len(rows)
    products = sums @ sums.T  # (P, P)

    def mean(weights: Tensor) -> float:
        pairs = float((weights @ counts) ** 2 - weights @ own[:, 1])
        return float(weights @ products @ weights - weights @ own[:, 0]) / pairs if pairs > 0 else math.nan

    return resamples.by_parts(mean)


def textures(images: Tensor) -> Tensor:
    """Fine texture of images (N, 1, H, W): (N, H * W) of mean 0 and length 1, all 0 where there is none."""
    pixels = images.detach().float().cpu().numpy()
    coarse = ndimage.gaussian_filter(pixels, (0, 0, FINE, FINE), mode="nearest")
    fine = torch.from_numpy(pixels - coarse).flatten(1)
    return functional.normalize(fine - fine.mean(1, keepdim=True), eps=SMALLEST)


def _batches(pairs: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(part[:, 0], part[:, 1]) for part in pairs.split(BATCH) if len(part)]
