"""Made sets with known answers: squares, smooth pictures, and patients as points without images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.rng import make_rng
from common.trust.image_sets import ImageSet, Sets
from common.trust.near_copies import Copies, combine_views, match_features
from common.trust.registration import WHOLE
from tests.common.trust.folders import textures

SIDE = 32
DIMENSION = 12
WITHIN = 0.25
"""How far slices of a patient differ, as a share of how far patients do."""


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


def vectors(patients: int, slices: int, seed: int, key: str) -> np.ndarray:
    """(patients * slices, D): each patient's slices follow one another."""
    numbers = make_rng(seed, key)
    centres = numbers.normal(size=(patients, 1, DIMENSION))
    return (centres + WITHIN * numbers.normal(size=(patients, slices, DIMENSION))).reshape(-1, DIMENSION)


def made_copies(
    seed: int,
    trained: int = 30,
    heldout: int = 25,
    unseen: int = 8,
    slices: int = 8,
    copied: int = 0,
    noise: float = 0.02,
) -> Copies:
    """Slices of ``unseen`` patients and ``copied`` noisy copies of training slices, looked up in the pool."""
    training, others = (vectors(n, slices, seed, key) for n, key in ((trained, "train"), (heldout, "held")))
    numbers = make_rng(seed, "copied")
    wanted = training[numbers.permutation(len(training))[: copied + 8]]
    copies = wanted + noise * numbers.normal(size=wanted.shape)
    pool = np.concatenate([training, others])
    parts = [vectors(unseen, slices, seed, "unseen"), copies[8:], pool, copies[:8]]
    patients = torch.arange(trained + heldout).repeat_interleave(slices)
    sizes = [len(part) for part in parts]
    own = torch.full((sum(sizes),), -1)
    start = sizes[0] + sizes[1]
    own[start : start + len(pool)] = patients
    scaled = [0.05 * torch.from_numpy(part).float() for part in (np.concatenate(parts), pool)]
    views = {WHOLE: match_features(scaled[0], scaled[1:], patients, own)}
    found = combine_views(views, slice(start, start + len(pool)), len(training))
    return Copies(
        found.part(slice(start)),
        found.part(slice(start, start + len(pool))),
        patients,
        torch.arange(trained + heldout) < trained,
        patients,
        {"noisy": found.part(slice(start + len(pool), None))},
        {},
        "made",
    )
