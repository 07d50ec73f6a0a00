"""How like real images generated ones are, and which of them are copies.

An image's similarity is 1 / (1 + d / u): d is the distance of its features (the extractor's, of the HU
window) to those of the nearest training image, u the median of that distance over real images of other
patients. A copy has 1; an image as near to the training images as a new patient's usually is has one half.

Copies are not wanted: an image that lies nearer to a training image than all but 5 % of the held-out real
images do, by features or by the correlation of its pixels with a training image in any orientation it was
shown in, is taken for one (see `common.metrics.memorisation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundles.lung_two_stage.generation.data import BankData
from bundles.lung_two_stage.generation.images import Images
from common.errors import UserError
from common.metrics.features import FeatureExtractor, extract
from common.metrics.memorisation import COPIED, nearest_training
from common.metrics.pixels import pattern_vectors

MEASURE = (
    "1 / (1 + d / u), d: distance of the features to the nearest training image, u: usual d of real images"
)
LEAST = 4
"""Held-out images of a class that can say what is usual for it; with fewer, classes are not told apart."""


@dataclass(frozen=True)
class Resemblance:
    """Of each generated image.

    Args:
        similarity: (N,) 0 to 1.
        copied: (N,) bool.
    """

    similarity: NDArray[np.float64]
    copied: NDArray[np.bool_]


class RealSide:
    """What generated images are held against: training images as they were shown, and held-out ones.

    Args:
        data: the bank that the generator learned from, split as then.
        extractor: of the features.
    Raises:
        UserError: no held-out images.
    """

    def __init__(self, data: BankData, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.training = data.train.first_channel().as_seen()
        parts = [data.val.first_channel(), data.test.first_channel()]
        self.held_out = np.concatenate([part.images for part in parts])
        self.held_out_categories = [sample.category for part in parts for sample in part.samples]
        if not len(self.held_out):
            raise UserError(f"{data.dataset_dir}: no held-out images to hold generated ones against")

    def resemblance(self, images: Images, categories: Sequence[str]) -> Resemblance:
        """Of generated images (N, C, S, S) in [-1, 1]; each is held against its own class."""
        similarity, copied = np.zeros(len(images)), np.zeros(len(images), bool)
        for category in sorted(set(categories)):
            places = [place for place, name in enumerate(categories) if name == category]
            found = self._of_class(torch.from_numpy(np.ascontiguousarray(images[places, :1])), category)
            similarity[places], copied[places] = found.similarity, found.copied
        return Resemblance(similarity, copied)

    def _of_class(self, images: Tensor, category: str) -> Resemblance:
        training, held_out = self._real(category)
        by_features = nearest_training(
            *(extract(self.extractor, part) for part in (images, training, held_out))
        )
        by_pixels = nearest_training(*(pattern_vectors(part) for part in (images, training, held_out)))
        copied = (by_features.ranks < COPIED) | (by_pixels.ranks < COPIED)
        return Resemblance((1 / (1 + by_features.ratios())).numpy(), copied.numpy())

    def _real(self, category: str) -> tuple[Tensor, Tensor]:
        """Training and held-out images of the class, or of all where too few of it are held out."""
        own = [place for place, name in enumerate(self.held_out_categories) if name == category]
        if len(own) < LEAST:
            return torch.from_numpy(self.training.images), torch.from_numpy(self.held_out)
        kept = [place for place, s in enumerate(self.training.samples) if s.category == category]
        return torch.from_numpy(self.training.images[kept]), torch.from_numpy(self.held_out[own])


def most_similar(
    found: Resemblance, valid: NDArray[np.bool_], categories: Sequence[str], count: int
) -> list[int]:
    """Places of the valid images that are no copies and are most like real ones; most similar first.

    Args:
        count: wanted, in equal parts of each class; fewer where there are not so many.
    """
    usable = valid & ~found.copied
    names = sorted(set(categories))
    kept: list[int] = []
    for number, category in enumerate(names):
        share = count // len(names) + (number < count % len(names))
        own = [place for place in np.flatnonzero(usable).tolist() if categories[place] == category]
        kept += sorted(own, key=lambda place: -found.similarity[place])[:share]
    return sorted(kept, key=lambda place: -found.similarity[place])
