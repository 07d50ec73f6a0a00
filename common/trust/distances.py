"""How near synthetic images come to training images, beside how near other real images come to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.metrics.features import FeatureExtractor, extract
from common.metrics.pixels import pattern_vectors, small_images
from common.trust.orientations import STAY, WAYS, Found, NearestOfAll, all_moved, shifts_up_to, turned
from common.trust.sets import Sets

PIXELS = "pixels"
REACH = 2
"""Shifts of so many of 32 pixels are looked for: of 6 % of the side."""
MOST_PAIRS = 10_000_000
"""With more pairs of images shifts are not looked for: 25 times the work."""


@dataclass(frozen=True)
class Distances:
    """In one space; flips and quarter turns do not count, in pixels small shifts neither.

    Attributes:
        synthetic: each synthetic image's nearest training image.
        heldout: each held-out image's nearest training image.
        members: each training image's nearest synthetic image.
        others: each held-out image's nearest synthetic image.
    """

    synthetic: Found
    heldout: Found
    members: Found
    others: Found


def looks_for_shifts(sets: Sets) -> bool:
    """Whether the sets are small enough to look for shifts too."""
    return len(sets.real) * max(len(sets.synthetic), len(sets.heldout)) <= MOST_PAIRS


def turned_features(
    extractor: FeatureExtractor, images: Tensor, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Features (N, D) of images (N, 1, S, S), once for each of the `WAYS` that they are turned.

    Args:
        extractor: on ``device`` already.
    """
    return [extract(extractor, turned(images, way), device=device) for way in WAYS]


def pixel_distances(sets: Sets) -> Distances:
    """Between patterns of 32 x 32 pixels, see `pattern_vectors`."""
    shifts = shifts_up_to(REACH) if looks_for_shifts(sets) else STAY
    real, heldout = (small_images(each.images) for each in (sets.real, sets.heldout))
    moved = (all_moved(each, pattern_vectors, shifts) for each in (real, heldout))
    synthetic = pattern_vectors(sets.synthetic.images)
    return distances(
        synthetic,
        pattern_vectors(heldout),
        ((way, here, there) for (way, here), (_, there) in zip(*moved, strict=True)),
    )


def distances(synthetic: Tensor, heldout: Tensor, moved: Iterable[tuple[int, Tensor, Tensor]]) -> Distances:
    """All four.

    Args:
        synthetic, heldout: vectors (N, D) and (K, D).
        moved: vectors of the training images (M, D) and of the held-out ones (K, D), moved in all ways, with
            each way's place in `WAYS`.
    """
    to_training, usual, members, others = (NearestOfAll() for _ in range(4))
    for way, training, apart in moved:
        to_training.add(synthetic, training, way)
        usual.add(heldout, training, way)
        members.add(training, synthetic, way)
        others.add(apart, synthetic, way)
    return Distances(to_training.found, usual.found, members.found, others.found)
