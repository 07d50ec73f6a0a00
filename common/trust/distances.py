"""How near synthetic images come to training images, beside how near other real images come to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from common.metrics.features import FeatureExtractor, extract
from common.metrics.pixels import pattern_vectors
from common.trust.orientations import Found, NearestOfAll, Vectors, all_turned
from common.trust.sets import Sets

PIXELS = "pixels"


@dataclass(frozen=True)
class Distances:
    """In one space; flips and quarter turns do not count.

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


def spaces(extractor: FeatureExtractor, device: torch.device | str = "cpu") -> Mapping[str, Vectors]:
    """Where distances are taken: ``pixels`` (patterns of 32 x 32, see `pattern_vectors`) and the features."""
    return {PIXELS: pattern_vectors, extractor.name: lambda images: extract(extractor, images, device=device)}


def distances(sets: Sets, vectors: Vectors) -> Distances:
    """All four, with synthetic and held-out images turned each way once."""
    training, heldout = vectors(sets.real.images), vectors(sets.heldout.images)
    to_training, usual, members, others = (NearestOfAll() for _ in range(4))
    for synthetic in all_turned(sets.synthetic.images, vectors):
        to_training.add(synthetic, training)
        members.add(training, synthetic)
        others.add(heldout, synthetic)
    for real in all_turned(sets.heldout.images, vectors):
        usual.add(real, training)
    return Distances(to_training.found, usual.found, members.found, others.found)
