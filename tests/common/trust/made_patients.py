"""Patients without images: points in a space where slices of one patient lie together."""

from __future__ import annotations

import numpy as np
import torch

from common.rng import make_rng
from common.trust.near_copies import Copies, combine_views, match_features
from common.trust.registration import WHOLE

DIMENSION = 12
WITHIN = 0.25
"""How far slices of a patient differ, as a share of how far patients do."""


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
