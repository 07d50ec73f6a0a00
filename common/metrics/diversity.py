"""How different generated images are from each other: similarity of pairs, shared texture, number of modes.

Also the log-likelihood of real images under generated ones (Goodfellow et al. 2014, section 5), which is low
where the generator has lost modes, and the inception score (Salimans et al. 2016), which is high if a
classifier is sure of each image and sees all classes. That score depends on the classifier as much as on the
images: the classifier is part of its name (``is_<name>``). It uses no real images; report their score beside
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from common.errors import UserError
from common.metrics.bootstrap import Resamples, Value
from common.metrics.features import FeatureExtractor, extract
from common.metrics.image_quality import MS_SSIM_SMALLEST, SSIM_SMALLEST, ms_ssim, ssim
from common.metrics.nearest_neighbors import TIE, find_nearest, squared_distance_rows, squared_distances
from common.rng import make_rng

MOST_PAIRS = 500
OVERSAMPLED = 8  # times as many pairs are drawn if those of one patient are to be left out
BATCH = 32  # images or pairs at once
TEXTURE_SIGMA = 1.5  # pixels; texture is what this Gaussian removes
SMALLEST_TEXTURE = 1e-4  # length of a texture that is more than rounding


@dataclass(frozen=True)
class PairValues:
    """A value for each of some pairs of images.

    Attributes:
        pairs: (P, 2) indices.
        values: (P,) float64.
    """

    pairs: Tensor
    values: Tensor

    def mean(self) -> float:
        """Computes the mean over the pairs."""
        return float(self.values.mean())

    def interval(self, resamples: Resamples) -> Value:
        """Computes the mean with its interval; a pair counts as often as both of its images."""
        return resamples.distance(self._weighted)

    def _weighted(self, weights: Tensor) -> float:
        both = weights.double()[self.pairs].prod(1)
        return float(both @ self.values / both.sum())


def draw_pairs(
    images: int, rng: np.random.Generator, most: int = MOST_PAIRS, patients: Sequence[str] | None = None
) -> Tensor:
    """Draws different unordered pairs of ``images`` images, at most ``most``: indices (P, 2).

    Args:
        patients: one id per image; pairs of one patient's images, which are alike, are left out.
    Raises:
        UserError: fewer than two images.

    Example:
        >>> draw_pairs(3, np.random.default_rng(0), patients=["a", "a", "b"]).tolist()
        [[0, 2], [1, 2]]
    """
    if images < 2:
        raise UserError(f"{images} images make no pair; at least 2 are needed to measure diversity")
    every = images * (images - 1) // 2
    limit = most if patients is None else most * OVERSAMPLED
    drawn = np.arange(every) if every <= limit else np.sort(rng.choice(every, limit, replace=False))
    larger = ((1 + np.sqrt(1 + 8 * drawn)) // 2).astype(np.int64)  # pair t is (j, t - j (j - 1) / 2)
    pairs = np.stack([drawn - larger * (larger - 1) // 2, larger], axis=1)
    if patients is not None:
        names = np.asarray(patients, dtype=np.str_)[pairs]
        pairs = pairs[names[:, 0] != names[:, 1]]
        if len(pairs) > most:
            pairs = pairs[np.sort(rng.choice(len(pairs), most, replace=False))]
    return torch.from_numpy(pairs)


def similarity_name(size: int) -> str:
    """Names the similarity for images whose shorter side is ``size`` pixels: ``ms_ssim`` or ``ssim``.

    Raises:
        UserError: the images are too small for either.
    """
    if size < SSIM_SMALLEST:
        raise UserError(f"images of {size} pixels are too small for SSIM; {SSIM_SMALLEST} are needed")
    return "ms_ssim" if size >= MS_SSIM_SMALLEST else "ssim"


@torch.inference_mode()
def similarities(images: Tensor, pairs: Tensor) -> PairValues:
    """Computes MS-SSIM of pairs (Odena et al. 2017), SSIM if the images are too small; 1 for equal images.

    Args:
        images: (N, 1, H, W) in [-1, 1].
        pairs: (P, 2), see `draw_pairs`.

    Example:
        >>> images = torch.rand(1, 1, 16, 16).expand(2, -1, -1, -1)
        >>> round(similarities(images, torch.tensor([[0, 1]])).mean(), 5)
        1.0
    """
    measure = {"ms_ssim": ms_ssim, "ssim": ssim}[similarity_name(min(images.shape[-2:]))]
    values = [measure(images[first].float(), images[second].float()) for first, second in _batches(pairs)]
    return PairValues(pairs, torch.cat([*values, torch.zeros(0)]).double())


def feature_distances(features: Tensor, pairs: Tensor) -> PairValues:
    """Computes Euclidean distances between the features (N, D) of pairs.

    Example:
        >>> feature_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0, 1]])).mean()
        5.0
    """
    values = [squared_distances(features[first], features[second]) for first, second in _batches(pairs)]
    return PairValues(pairs, torch.cat([*values, torch.zeros(0, dtype=torch.float64)]).sqrt())


def texture_correlation(images: Tensor, patients: Sequence[str], resamples: Resamples) -> Value:
    """Computes the mean correlation of the fine texture over pairs of images of different patients.

    About 0.04 for real lung slices, which share their outline. A generator that draws the same vessels or
    noise for every patient reaches 0.3 to 0.7, a single image 1.

    Args:
        images: (N, 1, H, W).
        patients: one id per image; generated images have the patient of their mask.
        resamples: of the images by patient.

    Example:
        >>> same = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
        >>> drawn = Resamples.draw(list("abcd"), 4, 20, np.random.default_rng(0))
        >>> round(texture_correlation(same, list("abcd"), drawn).mean, 6)
        1.0
    """
    total = len(resamples.stratum_of_part)
    sums = torch.zeros(total, images[0].numel(), dtype=torch.float64)  # (P, H * W)
    own, counts = torch.zeros(total, 2, dtype=torch.float64), torch.zeros(total, dtype=torch.float64)
    by_patient: dict[str, list[int]] = {}
    for index, patient in enumerate(patients):
        by_patient.setdefault(patient, []).append(index)
    for rows in by_patient.values():
        part = int(resamples.parts[rows[0]])
        patient_sum = torch.zeros_like(sums[part])
        for some in torch.tensor(rows).split(BATCH):
            patient_sum += textures(images[some]).double().sum(0)
        sums[part] += patient_sum
        own[part] += torch.tensor([float(patient_sum @ patient_sum), len(rows) ** 2], dtype=torch.float64)
        counts[part] += len(rows)
    products = sums @ sums.T  # (P, P)

    def mean(weights: Tensor) -> float:
        pairs = float((weights @ counts) ** 2 - weights @ own[:, 1])
        return float(weights @ products @ weights - weights @ own[:, 0]) / pairs if pairs > 0 else math.nan

    return resamples.by_parts(mean)


def textures(images: Tensor) -> Tensor:
    """Extracts the fine texture of images (N, 1, H, W): (N, H * W), mean 0, length 1; 0 for flat images."""
    pixels = images.detach().float().cpu().numpy()
    sigmas = (0, 0, TEXTURE_SIGMA, TEXTURE_SIGMA)
    fine = torch.from_numpy(pixels - ndimage.gaussian_filter(pixels, sigmas, mode="nearest")).flatten(1)
    return functional.normalize(fine - fine.mean(1, keepdim=True), eps=SMALLEST_TEXTURE)


def _batches(pairs: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(part[:, 0], part[:, 1]) for part in pairs.split(BATCH) if len(part)]


QUANTILE = 0.05  # of the real images have a neighbour that counts as alike
MOST_IMAGES = 2000  # used to count modes; if all of them are alike there are 2 million pairs
ORDERS = 1000  # of drawing images; fewer if there are many pairs
WORK = 2**24  # pairs times orders


@dataclass(frozen=True)
class Birthday:
    """The birthday-paradox test of the number of modes (Arora & Zhang 2017).

    Attributes:
        batch: the smallest number of images of which two are alike with probability 1/2; the number of images
            if that does not happen.
        reached: whether it happens. Otherwise ``batch`` and ``modes`` are lower bounds.

    Example:
        >>> round(Birthday(23, True).modes)  # people of whom two share a birthday
        365
    """

    batch: int
    reached: bool

    @property
    def modes(self) -> float:
        """The number of equally likely modes that repeat as soon."""
        return self.batch * (self.batch - 1) / (2 * math.log(2))


def duplicate_threshold(real: Tensor, quantile: float = QUANTILE) -> float:
    """Computes the distance up to which two images count as alike, a quantile of nearest real distances.

    Args:
        real: features (N, D), at least two rows.

    Example:
        >>> real = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0])[:, None]  # nearest: 1, 1, 2, 4, 8
        >>> duplicate_threshold(real, 0.75)
        4.0
    """
    return float(find_nearest(real)[0].flatten().quantile(quantile))


def birthday(features: Tensor, threshold: float, rng: np.random.Generator) -> Birthday:
    """Measures when images with these features (N, D) begin to repeat; uses the first 2 000.

    Args:
        threshold: pairs at most this far apart are alike, see `duplicate_threshold`.
        rng: draws the orders in which images come.
    Raises:
        UserError: fewer than two images.

    Example:
        >>> birthday(torch.zeros(150, 4), 0.0, np.random.default_rng(5))  # total collapse
        Birthday(batch=2, reached=True)
    """
    features = features[:MOST_IMAGES]
    count = len(features)
    if count < 2:
        raise UserError(f"{count} images cannot repeat; at least 2 are needed to count modes")
    firsts = _first_repeats(alike_pairs(features, threshold).numpy(), count, rng)
    batch = int(np.sort(firsts)[(len(firsts) - 1) // 2])  # half of the orders repeat by then
    return Birthday(min(batch, count), batch <= count)


def alike_pairs(features: Tensor, threshold: float) -> Tensor:
    """Pairs of rows (N, D) at most ``threshold`` apart: indices (P, 2), the smaller one first."""
    parts = [torch.zeros(0, 2, dtype=torch.int64)]
    for rows, squared in squared_distance_rows(features):
        near = (squared <= threshold**2 * (1 + TIE)).nonzero() + torch.tensor([rows.start, 0])
        parts.append(near[near[:, 0] < near[:, 1]])
    return torch.cat(parts)


def _first_repeats(alike: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For many orders, the number of images drawn until two are alike; count + 1 if none are.

    Args:
        alike: (P, 2) indices.
    """
    orders = int(np.clip(WORK // max(len(alike), 1), 100, ORDERS))
    firsts = np.full(orders, count + 1)
    one, other = np.ascontiguousarray(alike.T)
    for order in range(orders if len(alike) else 0):
        positions = rng.permutation(count)
        firsts[order] = np.maximum(positions[one], positions[other]).min() + 1
    return firsts


DIVERSITY_PAIRS = 100
SMALLEST_DIVERSITY = 1e-12  # denominator for sets of equal images


@dataclass(frozen=True)
class Diversity:
    """How different images are from each other.

    Attributes:
        images: 1 - MS-SSIM (SSIM for images up to 160 pixels), the mean over pairs.
        features: distance of features, the mean over pairs.
        modes: see `Birthday`.
        threshold: distance of features up to which images count as one mode.
    """

    images: float
    features: float
    modes: float
    threshold: float

    def against(self, real: Diversity) -> dict[str, float]:
        """``images``, ``features``, ``modes`` as multiples of a real set's; 1 if equally diverse."""
        names = "images", "features", "modes"
        return {name: getattr(self, name) / max(getattr(real, name), SMALLEST_DIVERSITY) for name in names}


def measure_diversity(
    images: Tensor,
    extractor: FeatureExtractor,
    threshold: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Diversity:
    """Measures the diversity of a set of images.

    Args:
        images: (N, 1, H, W) in [-1, 1], at least two.
        extractor: on ``device`` already.
        threshold: of the real set to compare with; None for a real set, which finds its own.
        seed: of the pairs and orders drawn.
    Raises:
        UserError: fewer than two images, or images that are too small.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> images = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> real = measure_diversity(images, RandomVGG())
        >>> copies = measure_diversity(images[:1].expand(6, -1, -1, -1), RandomVGG(), real.threshold)
        >>> round(copies.against(real)["features"], 6)
        0.0
    """
    pairs = draw_pairs(len(images), make_rng(seed, "spread", "pairs"), DIVERSITY_PAIRS)
    features = extract(extractor, images, device=device)
    alike = duplicate_threshold(features) if threshold is None else threshold
    return Diversity(
        images=1 - similarities(images, pairs).mean(),
        features=feature_distances(features, pairs).mean(),
        modes=birthday(features, alike, make_rng(seed, "spread", "orders")).modes,
        threshold=alike,
    )


NARROWEST, STEPS = 0.01, 25  # bandwidths: this many, from this share of the widest one that can be best
CHUNK = 256  # images at once
SMALLEST_BANDWIDTH = 1e-6  # instead of 0, for which copies would be infinitely likely


def log_likelihood(samples: Tensor, validation: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """Computes the log density of each test image under Gaussians around the generated images.

    The bandwidth is the most likely one for the validation images, of `usual_bandwidths`.

    Args:
        samples, validation, test: vectors (M, D), (V, D) and (N, D) of generated images and of two separate
            parts of the real ones.
    Returns:
        (N,) float64, nats per image, higher is better; and the bandwidth, the standard deviation of the
        Gaussians in the vectors' units.
    Raises:
        UserError: one of the sets is empty.

    Example:
        >>> validation = torch.tensor([[0.3], [-0.3]])
        >>> values, bandwidth = log_likelihood(torch.zeros(1, 1), validation, torch.zeros(2, 1))
        >>> round(bandwidth, 3), values.shape
        (0.3, torch.Size([2]))
    """
    for name, vectors in {"generated": samples, "validation": validation, "test": test}.items():
        if not len(vectors):
            raise UserError(f"no {name} images for the log-likelihood; at least 1 is needed")
    widths = usual_bandwidths(samples, validation)
    best = widths[int(log_densities(samples, validation, widths).mean(1).argmax())]
    return log_densities(samples, test, [best])[0], best


def usual_bandwidths(samples: Tensor, validation: Tensor) -> list[float]:
    """Lists a geometric series of bandwidths up to the root mean square difference of a coordinate.

    The square of the best bandwidth is a mean of squared differences in which near samples count more (the
    derivative of the likelihood is 0 there), so no wider one need be tried.
    """
    variance = samples.double().var(0, correction=0) + validation.double().var(0, correction=0)
    offset = samples.double().mean(0) - validation.double().mean(0)
    widest = math.sqrt(float((variance + offset.square()).mean()))
    series = torch.logspace(math.log10(NARROWEST), 0, STEPS, dtype=torch.float64) * widest
    return series.clamp_min(SMALLEST_BANDWIDTH).tolist()


def log_densities(samples: Tensor, images: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """log 1/M sum_m N(x; g_m, b^2) of images x (N, D) for B bandwidths b: (B, N) float64."""
    centre = samples.mean(0, dtype=torch.float64)
    kernels = samples.double() - centre  # (M, D)
    count, dimension = kernels.shape
    parts = []
    for part in images.split(CHUNK):
        vectors = part.double() - centre
        squares = kernels.square().sum(1) + vectors.square().sum(1)[:, None]
        squared = (squares - 2 * vectors @ kernels.T).clamp_min(0)  # (n, M)
        parts.append(torch.stack([(squared / (-2 * b * b)).logsumexp(1) for b in bandwidths]))
    widths = torch.tensor(bandwidths, dtype=torch.float64)[:, None]
    constant = math.log(count) + dimension / 2 * torch.log(2 * math.pi * widths**2)  # (B, 1)
    return torch.cat(parts, dim=1) - constant


TINY = 1e-12
"""Added to probabilities, so that 0 log 0 is 0."""
TOLERANCE = 1e-3


class Classifier(Protocol):
    """Turns images (B, 1, H, W) in [-1, 1] into class probabilities (B, K), without gradients."""

    name: str

    def __call__(self, images: Tensor) -> Tensor: ...


def inception_score(probabilities: Tensor, weights: Tensor | None = None) -> float:
    """exp(E KL(p(y|x) || p(y))): at least 1, at most K (all classes equally common, every image certain).

    It is computed from all images at once instead of ten parts of 5 000 as published, since sets here are
    smaller. It grows with the number of images: compare sets of equal size.

    Args:
        probabilities: (N, K), each row of sum 1.
        weights: (N,) how often each image counts (bootstrap); once by default.
    Raises:
        UserError: no images, or rows that are no probabilities.

    Example:
        >>> round(inception_score(torch.eye(4)), 3)
        4.0
    """
    _check(probabilities)
    rows = probabilities.double()
    counts = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
    shares = counts / counts.sum()
    marginal = shares @ rows  # (K,)
    divergences = (rows * ((rows + TINY).log() - (marginal + TINY).log())).sum(1)  # (N,)
    return float((shares @ divergences).exp())


def score_with_interval(probabilities: Tensor, resamples: Resamples) -> Value:
    """Computes `inception_score` with its interval.

    Example:
        >>> import numpy as np
        >>> drawn = Resamples.draw(None, 8, 50, np.random.default_rng(0))
        >>> round(score_with_interval(torch.eye(4).repeat(2, 1), drawn).mean, 3)
        4.0
    """
    return resamples.distance(lambda weights: inception_score(probabilities, weights)).at_least(1)


@torch.inference_mode()
def class_probabilities(
    classifier: Classifier, images: Tensor, batch_size: int = 32, device: torch.device | str = "cpu"
) -> Tensor:
    """Class probabilities of images, in batches: (N, 1, H, W) -> (N, K) float32 on the CPU.

    The classifier must already be on ``device``.

    Example:
        >>> def halves(images):
        ...     return torch.full((len(images), 2), 0.5)
        >>> class_probabilities(halves, torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 2])
    """
    return torch.cat([classifier(batch.to(device)).float().cpu() for batch in images.split(batch_size)])


def _check(probabilities: Tensor) -> None:
    if not len(probabilities):
        raise UserError("no images for the inception score; at least 1 is needed")
    sums = probabilities.double().sum(1)
    if bool((probabilities < 0).any()) or bool(((sums - 1).abs() > TOLERANCE).any()):
        raise UserError("the inception score takes probabilities: rows of sum 1, none below 0; use a softmax")
