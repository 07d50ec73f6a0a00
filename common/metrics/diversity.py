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
from common.metrics.features import FeatureExtractor, extract
from common.metrics.image_quality import MS_SSIM_SMALLEST, SSIM_SMALLEST, ms_ssim, ssim
from common.metrics.nearest_neighbors import PairBlocks, find_nearest, squared_distances
from common.rng import make_rng

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


QUANTILE = 0.05  # of the real images have a neighbour that counts as alike
MOST = 2000  # images looked at; with all of them alike there are 2 million pairs
ORDERS = 1000  # in which images are drawn, fewer where there are many pairs
WORK = 2**24  # pairs times orders
ROUNDING = 1e-6  # relative, of float32


@dataclass(frozen=True)
class Birthday:
    """When images begin to repeat.

    Attributes:
        batch: the smallest number of images among which two are alike with probability 1/2; all that there
            were where that does not happen.
        reached: whether it happens. Otherwise ``batch`` and ``modes`` are lower bounds.
    """

    batch: int
    reached: bool

    @property
    def modes(self) -> float:
        """How many equally likely modes repeat as soon."""
        return self.batch * (self.batch - 1) / (2 * math.log(2))


def duplicate_threshold(real: Tensor, quantile: float = QUANTILE) -> float:
    """The distance below which two images count as alike: a quantile of real images' nearest distances.

    Args:
        real: features (N, D), at least two rows.
    """
    return float(find_nearest(real)[0].flatten().quantile(quantile))


def birthday(features: Tensor, threshold: float, numbers: np.random.Generator) -> Birthday:
    """When images with these features (N, D) begin to repeat; the first 2 000 are looked at.

    Args:
        threshold: see `duplicate_threshold`; pairs at most as far apart are alike.
        numbers: draws the orders in which images come.
    Raises:
        UserError: fewer than two images.
    """
    features = features[:MOST]
    count = len(features)
    if count < 2:
        raise UserError(f"{count} images cannot repeat; at least 2 are needed to count modes")
    firsts = first_repeats(alike_pairs(features, threshold).numpy(), count, numbers)
    batch = int(np.sort(firsts)[(len(firsts) - 1) // 2])  # half of the orders repeat within as many
    return Birthday(min(batch, count), batch <= count)


def alike_pairs(features: Tensor, threshold: float) -> Tensor:
    """Pairs of rows (N, D) at most ``threshold`` apart: indices (P, 2), the smaller one first."""
    pairs, found = PairBlocks(features), []
    for block in pairs:
        near = pairs.lower_bounds(block) <= threshold**2 * (1 + ROUNDING)
        rows, columns = near.nonzero(as_tuple=True)
        indices = torch.stack([rows + block.rows.start, columns + block.columns.start], dim=1)
        found.append(indices[indices[:, 0] < indices[:, 1]])
    every = torch.cat(found)  # (P, 2), with some that rounding let in
    return every[pairs.exact(every[:, 0], every[:, 1]).sqrt() <= threshold]


def first_repeats(alike: np.ndarray, count: int, numbers: np.random.Generator) -> np.ndarray:
    """How many of ``count`` images come until two are alike, in many orders; count + 1 where none are.

    Args:
        alike: (P, 2) indices.
    """
    orders = int(np.clip(WORK // max(len(alike), 1), 100, ORDERS))
    firsts = np.full(orders, count + 1)
    one, other = np.ascontiguousarray(alike.T)
    for order in range(orders if len(alike) else 0):
        places = numbers.permutation(count)
        firsts[order] = np.maximum(places[one], places[other]).min() + 1
    return firsts


SPREAD_PAIRS = 100  # of images, compared at most
SMALLEST_SPREAD = 1e-12  # differences of images that are all alike do not divide


@dataclass(frozen=True)
class Diversity:
    """How different images are from each other.

    Attributes:
        images: 1 - MS-SSIM (SSIM of images up to 160 pixels), the mean over pairs.
        features: distance of features, the mean over pairs.
        modes: equally likely modes that repeat as soon, see `common.metrics.diversity.Birthday`.
        threshold: distance of features up to which images were taken for one mode.
    """

    images: float
    features: float
    modes: float
    threshold: float

    def against(self, real: Diversity) -> dict[str, float]:
        """``images``, ``features`` and ``modes`` as multiples of a real set's: 1 for a set as diverse."""
        names = "images", "features", "modes"
        return {name: getattr(self, name) / max(getattr(real, name), SMALLEST_SPREAD) for name in names}


def measure_diversity(
    images: Tensor,
    extractor: FeatureExtractor,
    threshold: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Diversity:
    """Measures a set of images.

    Args:
        images: (N, 1, H, W) in [-1, 1], at least two.
        extractor: on ``device`` already.
        threshold: of the real set that these are compared with; None for a real set, which finds its own.
        seed: of the pairs and orders drawn.
    Raises:
        UserError: fewer than two images, or too small ones.
    """
    pairs = drawn_pairs(len(images), make_rng(seed, "spread", "pairs"), SPREAD_PAIRS)
    features = extract(extractor, images, device=device)
    alike = duplicate_threshold(features) if threshold is None else threshold
    return Diversity(
        images=1 - similarities(images, pairs).mean(),
        features=feature_distances(features, pairs).mean(),
        modes=birthday(features, alike, make_rng(seed, "spread", "orders")).modes,
        threshold=alike,
    )


NARROWEST, STEPS = 0.01, 25  # bandwidths tried: from this share of the widest that can be best, to the widest
CHUNK = 256  # images at once
SMALLEST_LIKELIHOOD = 1e-6  # bandwidth; stands for 0, at which copies would be infinitely likely


@dataclass(frozen=True)
class LogLikelihood:
    """What each test image says; the metric is the mean.

    Attributes:
        values: (N,) float64, nats.
        bandwidth: the standard deviation of the Gaussians, in the vectors' units.
    """

    values: Tensor
    bandwidth: float

    def mean(self) -> float:
        """Nats per image; higher is better."""
        return float(self.values.mean())


def log_likelihood(
    samples: Tensor, validation: Tensor, test: Tensor, bandwidths: Sequence[float] | None = None
) -> LogLikelihood:
    """The log density of each test image.

    Args:
        samples, validation, test: vectors (M, D), (V, D) and (N, D) of generated images and of two separate
            parts of the real ones.
        bandwidths: to choose from; by default `usual_bandwidths`.
    Raises:
        UserError: one of the sets is empty.
    """
    for name, vectors in {"generated": samples, "validation": validation, "test": test}.items():
        if not len(vectors):
            raise UserError(f"no {name} images for the log-likelihood; at least 1 is needed")
    widths = usual_bandwidths(samples, validation) if bandwidths is None else list(bandwidths)
    best = widths[int(log_densities(samples, validation, widths).mean(1).argmax())]
    return LogLikelihood(log_densities(samples, test, [best])[0], best)


def usual_bandwidths(samples: Tensor, validation: Tensor) -> list[float]:
    """A geometric row up to the root mean square difference of a coordinate.

    At the best bandwidth its square is a mean of squared differences in which near samples count more (the
    derivative of the likelihood is 0 there), so none above need be tried.
    """
    spread = samples.double().var(0, correction=0) + validation.double().var(0, correction=0)
    apart = samples.double().mean(0) - validation.double().mean(0)
    widest = math.sqrt(float((spread + apart.square()).mean()))
    row = torch.logspace(math.log10(NARROWEST), 0, STEPS, dtype=torch.float64) * widest
    return row.clamp_min(SMALLEST_LIKELIHOOD).tolist()


def log_densities(samples: Tensor, images: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """log 1/M sum_m N(x; g_m, b^2) of images x (N, D) for B bandwidths b: (B, N) float64."""
    centre = samples.mean(0, dtype=torch.float64)
    kernels = samples.double() - centre  # (M, D)
    count, dimension = kernels.shape
    found = []
    for part in images.split(CHUNK):
        vectors = part.double() - centre
        squares = kernels.square().sum(1) + vectors.square().sum(1)[:, None]
        squared = (squares - 2 * vectors @ kernels.T).clamp_min(0)  # (n, M)
        found.append(torch.stack([(squared / (-2 * b * b)).logsumexp(1) for b in bandwidths]))
    widths = torch.tensor(bandwidths, dtype=torch.float64)[:, None]
    constant = math.log(count) + dimension / 2 * torch.log(2 * math.pi * widths**2)  # (B, 1)
    return torch.cat(found, dim=1) - constant
