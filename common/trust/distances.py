"""How near synthetic images come to training images, beside how near other real images come to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.metrics.features import FeatureExtractor, extract
from common.metrics.pixels import PIXELS as SIDE
from common.metrics.pixels import pattern_vectors, small_images
from common.trust.orientations import STAY, Found, NearestOfAll, Shift, Vectors, all_moved, shifts_up_to
from common.trust.sets import Sets

PIXELS = "pixels"
REACH = 2
"""Shifts of so many of 32 pixels are looked for: of 6 % of the side."""
MOST_PAIRS = 10_000_000
"""With more pairs of images shifts are not looked for: 25 times the work."""


@dataclass(frozen=True)
class Space:
    """Where distances are taken.

    Attributes:
        vectors: of images.
        shifts: that do not count, in pixels of what ``prepare`` gives.
        prepare: done once to a set of images, before it is moved.
    """

    vectors: Vectors
    shifts: Sequence[Shift] = STAY
    prepare: Callable[[Tensor], Tensor] = Tensor.detach  # nothing


@dataclass(frozen=True)
class Distances:
    """In one space; flips and quarter turns do not count, nor do the space's shifts.

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


def spaces(
    sets: Sets, extractor: FeatureExtractor, device: torch.device | str = "cpu"
) -> Mapping[str, Space]:
    """By name: ``pixels`` (patterns of 32 x 32, see `pattern_vectors`) and the extractor's features (N, D).

    Args:
        sets: their sizes say whether shifts are looked for.
        extractor: on ``device`` already.
    """
    shifts = shifts_up_to(REACH) if looks_for_shifts(sets) else STAY
    return {
        PIXELS: Space(pattern_vectors, shifts, small_images),
        extractor.name: Space(lambda images: extract(extractor, images, device=device)),
    }


def looks_for_shifts(sets: Sets) -> bool:
    """Whether the sets are small enough to look for shifts too."""
    return len(sets.real) * max(len(sets.synthetic), len(sets.heldout)) <= MOST_PAIRS


def told(sets: Sets) -> str:
    """What copies are looked for, in words."""
    turns = "flipped, turned by quarters"
    if looks_for_shifts(sets):
        return f"{turns}, and in pixels shifted by up to {REACH / SIDE:.0%} of the side"
    return f"{turns}, not shifted: more than {MOST_PAIRS:,} pairs of images"


def distances(sets: Sets, space: Space) -> Distances:
    """All four, with synthetic and held-out images moved each way once."""
    training, heldout = (space.vectors(space.prepare(each.images)) for each in (sets.real, sets.heldout))
    to_training, usual, members, others = (NearestOfAll() for _ in range(4))
    for way, synthetic in all_moved(space.prepare(sets.synthetic.images), space.vectors, space.shifts):
        to_training.add(synthetic, training, way)
        members.add(training, synthetic, way)
        others.add(heldout, synthetic, way)
    for way, real in all_moved(space.prepare(sets.heldout.images), space.vectors, space.shifts):
        usual.add(real, training, way)
    return Distances(to_training.found, usual.found, members.found, others.found)
