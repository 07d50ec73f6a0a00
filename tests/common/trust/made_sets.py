"""Made slices with a square or two, for tests of the trust report: the answer is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.rng import make_rng
from common.trust.image_sets import ImageSet, Sets

SIDE = 32


def squares(count: int, seed: int, side: int = 8) -> Tensor:
    """Masks (N, 1, S, S) of one square each, at a drawn place."""
    random = make_rng(seed, "squares")
    masks = torch.zeros(count, 1, SIDE, SIDE)
    for mask, (row, column) in zip(masks, random.integers(1, SIDE - side - 1, (count, 2)), strict=True):
        mask[0, row : row + side, column : column + side] = 1
    return masks


def drawn(masks: Tensor, seed: int) -> Tensor:
    """Images of masks: bright squares on a dark ground, with noise; [-1, 1]."""
    noise = make_rng(seed, "noise").normal(0, 0.1, masks.shape)
    return (masks - 0.5 + torch.from_numpy(noise)).clamp(-1, 1).float()


def image_set(name: str, masks: Tensor, images: Tensor, patients: int = 0, labelled: bool = True) -> ImageSet:
    """Images of ``patients`` patients in turn; 0 for one each."""
    numbers = np.arange(len(images)) % (patients or len(images))
    names = [f"{name}{number:03d}.png" for number in range(len(images))]
    owners = [f"{name}{number}" for number in numbers]
    return ImageSet(images, owners, names, masks if labelled else None, ("square",) if labelled else ())


def made(name: str, count: int, seed: int, patients: int = 0) -> ImageSet:
    """Images that show their masks."""
    masks = squares(count, seed)
    return image_set(name, masks, drawn(masks, seed), patients)


def ignoring(count: int, seed: int) -> ImageSet:
    """Images as good as real ones, of other masks than those that were asked for."""
    return image_set("ignoring", squares(count, seed), drawn(squares(count, seed + 100), seed))


def made_sets(synthetic: ImageSet, real: int = 24, heldout: int = 12) -> Sets:
    """A real set of 8 patients, a held-out one of 4."""
    return Sets(made("real", real, 1, 8), made("heldout", heldout, 2, 4), synthetic)
