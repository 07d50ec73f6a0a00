"""Sets of smooth random pictures, which no flip or rotation leaves as they are, and a cheap extractor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from common.trust.image_sets import ImageSet, Sets
from tests.common.trust.folders import textures


class Coarse:
    """A picture's sixteen coarsest places as features."""

    name = "coarse"
    dimension = 16

    def __call__(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, 4).flatten(1) * 4  # (B, 1, 4, 4) -> (B, 16)


def pictures(count: int, seed: int) -> Tensor:
    """(count, 1, 32, 32) in [-1, 1]."""
    return torch.from_numpy(textures(count, seed)).float()[:, None] / 127.5 - 1


def noise(count: int, seed: int, side: int = 32) -> Tensor:
    """Pixels that know nothing of each other, within [-1, 1]."""
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def turned(images: Tensor) -> Tensor:
    """Each image flipped or rotated in another way."""
    ways = [image if place % 2 else image.flip(-1) for place, image in enumerate(images)]
    return torch.stack([image.rot90(place % 4, (-2, -1)) for place, image in enumerate(ways)])


def a_set(images: Tensor, name: str, patients: Sequence[str] = ()) -> ImageSet:
    """With a patient for every two images, where none are given."""
    owners = list(patients) or [f"{name}{place // 2}" for place in range(len(images))]
    return ImageSet(images, owners, [f"{name}_{place:03d}.png" for place in range(len(images))], folder=name)


def sets_with(synthetic: Tensor, real: int = 60, heldout: int = 60) -> Sets:
    """Real images of seed 0, held-out ones of seed 1."""
    return Sets(
        a_set(pictures(real, 0), "real"),
        a_set(pictures(heldout, 1), "heldout"),
        a_set(synthetic, "synthetic"),
    )
