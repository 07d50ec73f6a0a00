"""What makes three sets of images unfit to be compared: said in one line before anything is measured."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import torch

from common.errors import UserError
from common.trust.sets import ImageSet, Sets

FEW_VALUES = 16
"""A slice of a scan has more gray values than that; a mask or a label map has fewer."""
MOSTLY = 0.5
LOOKED_AT = 50
"""Images of a set, evenly spread, whose values are counted."""


def check_sets(sets: Sets, drawn: bool = False) -> None:
    """Refuses sets whose comparison would mean nothing.

    Args:
        drawn: the synthetic images come straight from a generator: however flat, they are no masks.

    Raises:
        UserError: NaN, images of different sizes, masks where the others are scans, two sets of the same
            images, or a patient or an image that is in the real and in the held-out set.
    """
    named = {"real": sets.real, "heldout": sets.heldout, "synthetic": sets.synthetic}
    for name, images in named.items():
        _check_one(images, name)
    for (name, first), (other, second) in combinations(named.items(), 2):
        _check_alike(first, name, second, other, not drawn or "synthetic" not in (name, other))
    _check_apart(sets.real, sets.heldout)


def digests(images: ImageSet) -> list[bytes]:
    """A hash of each image's pixels."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in images.images]


def _check_one(images: ImageSet, name: str) -> None:
    if len(images) < 2:
        raise UserError(f"{_where(images, name)}: holds {len(images)} image; at least 2 are needed")
    finite = images.images.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        place = int((~finite).nonzero()[0])
        raise UserError(
            f"{_where(images, name)}: {images.names[place]} holds NaN or infinite values; remove the image"
        )


def _check_alike(first: ImageSet, name: str, second: ImageSet, other: str, look: bool) -> None:
    here, there = _where(first, name), _where(second, other)
    if first.images.shape[1:] != second.images.shape[1:]:
        sizes = [" x ".join(str(side) for side in part.images.shape[2:]) for part in (first, second)]
        raise UserError(
            f"{there}: images of {sizes[1]} pixels but {sizes[0]} in {here}; read both at one size"
        )
    flat = _holds_masks(first), _holds_masks(second)
    if look and flat[0] != flat[1]:
        masks, scans = (here, there) if flat[0] else (there, here)
        raise UserError(
            f"{masks}: most images have no more than {FEW_VALUES} gray values, as masks do, those of {scans} "
            "have many; give the images, not their labels"
        )
    if len(first) == len(second) and Counter(digests(first)) == Counter(digests(second)):
        raise UserError(f"{there}: holds the same {len(second)} images as {here}; give two different sets")


def _check_apart(real: ImageSet, heldout: ImageSet) -> None:
    where = _where(heldout, "heldout")
    shared = sorted(set(real.patients) & set(heldout.patients))
    if shared:
        raise UserError(
            f"{where}: patient {shared[0]} is in {_where(real, 'real')} too ({len(shared)} in all); "
            "held-out images must be of other patients"
        )
    known = dict(zip(digests(real), real.names, strict=True))
    for digest, name in zip(digests(heldout), heldout.names, strict=True):
        if digest in known:
            raise UserError(
                f"{where}: {name} is the same image as {known[digest]} in {_where(real, 'real')}; remove one"
            )


def _holds_masks(images: ImageSet) -> bool:
    places = torch.linspace(0, len(images) - 1, min(len(images), LOOKED_AT)).long()
    few = [len(image.unique()) <= FEW_VALUES for image in images.images[places]]
    return _share(few) > MOSTLY


def _share(held: Sequence[bool]) -> float:
    return sum(held) / len(held)


def _where(images: ImageSet, name: str) -> str:
    return images.folder or f"the {name} images"
