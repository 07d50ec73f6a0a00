"""How different the images of a set are from each other: three numbers, to compare with a real set's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.metrics.birthday import birthday, duplicate_threshold
from common.metrics.diversity import drawn_pairs, feature_distances, similarities
from common.metrics.features import FeatureExtractor, extract
from common.random import generator

PAIRS = 100  # of images, compared at most
SMALLEST = 1e-12  # differences of images that are all alike do not divide


@dataclass(frozen=True)
class Spread:
    """How different images are from each other.

    Attributes:
        images: 1 - MS-SSIM (SSIM of images up to 160 pixels), the mean over pairs.
        features: distance of features, the mean over pairs.
        modes: equally likely modes that repeat as soon, see `common.metrics.birthday.Birthday`.
        threshold: distance of features up to which images were taken for one mode.
    """

    images: float
    features: float
    modes: float
    threshold: float

    def against(self, real: Spread) -> dict[str, float]:
        """``images``, ``features`` and ``modes`` as multiples of a real set's: 1 for a set as diverse."""
        names = "images", "features", "modes"
        return {name: getattr(self, name) / max(getattr(real, name), SMALLEST) for name in names}


def spread(
    images: Tensor,
    extractor: FeatureExtractor,
    threshold: float | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Spread:
    """Measures a set of images.

    Args:
        images: (N, 1, H, W) in [-1, 1], at least two.
        extractor: on ``device`` already.
        threshold: of the real set that these are compared with; None for a real set, which finds its own.
        seed: of the pairs and orders drawn.
    Raises:
        UserError: fewer than two images, or too small ones.
    """
    pairs = drawn_pairs(len(images), generator(seed, "spread", "pairs"), PAIRS)
    features = extract(extractor, images, device=device)
    alike = duplicate_threshold(features) if threshold is None else threshold
    return Spread(
        images=1 - similarities(images, pairs).mean(),
        features=feature_distances(features, pairs).mean(),
        modes=birthday(features, alike, generator(seed, "spread", "orders")).modes,
        threshold=alike,
    )
