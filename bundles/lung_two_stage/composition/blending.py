"""Laying a nodule on a slice so that it belongs there: contrast and noise of the place, soft edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.composition.grain import FEWEST, grain_of, lung_of, make_noise
from bundles.lung_two_stage.composition.stamps import SOFT_TISSUE, Stamp

STRETCH = (0.5, 2.0)
"""Bounds of what matching may do to contrast."""
CALMEST = 0.5
"""Least share of a nodule's own grain that is kept, however calm the slice."""
RANGE = (-1024, 3071)
"""HU of a 12-bit scanner."""
DENSER = 50.0
"""HU: what of the slice is denser than the nodule's rim by more than this stays, all of it at twice that."""
OVER_NOISE = 2.5
"""The same in standard deviations of the noise, where that is more."""


def blend(
    image: NDArray[np.int16],
    lung: NDArray[np.uint8],
    stamp: Stamp,
    place: tuple[int, int],
    random: np.random.Generator,
) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
    """Lays a nodule on a slice, in place; only pixels with alpha above 0 change.

    The nodule and the zone around it, where pixels hold some of it, come as they are in the crop: to weigh
    them with anything less than 1 would take the lung's share of the rim twice. Vessels and walls of the
    slice that are denser than what would cover them stay.

    Args:
        image: (H, W) HU, changed.
        lung: (H, W), 0 outside: there nothing is laid.
        place: row and column of the nodule's middle.
        random: draws the noise.
    Returns:
        The box that the stamp covers, and the nodule's mask (bool) in it.
    """
    box, part = overlap(image.shape, stamp.hu.shape[0], place)
    under, inside = image[box].astype(np.float32), lung[box] > 0
    grain, alpha = grain_of(under), stamp.alpha[part] * inside
    level, noise = surroundings(under, grain, inside, alpha, stamp.background)
    values, own = matched(stamp.hu[part], stamp.grain[part], stamp, level, noise)
    alpha = alpha * (1 - denser(under - grain, values - grain_of(values), level, max(noise, own)))
    added = missing_noise(alpha, noise, own) * make_noise(random, stamp.hu.shape[0])[part]
    mixed = under + alpha * (values - under) + added
    np.copyto(image[box], np.rint(mixed.clip(*RANGE)).astype(np.int16), where=alpha > 0)
    return box, stamp.inside[part] & inside


def overlap(
    shape: tuple[int, ...], side: int, place: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a square stamp lies in a slice of ``shape``, and the part of the stamp that does."""
    starts = [middle - side // 2 for middle in place]
    box = [
        slice(max(start, 0), min(start + side, extent)) for start, extent in zip(starts, shape, strict=True)
    ]
    part = [slice(b.start - start, b.stop - start) for b, start in zip(box, starts, strict=True)]
    return (box[0], box[1]), (part[0], part[1])


def surroundings(
    under: NDArray[np.float32],
    grain: NDArray[np.float32],
    inside: NDArray[np.bool_],
    alpha: NDArray[np.float32],
    otherwise: float,
) -> tuple[float, float]:
    """Level and noise of the lung at a place, HU: beside the nodule, or under it where beside is hardly any.

    Args:
        under, grain: the slice there, and its finest texture.
        inside: where that is lung.
        alpha: of the nodule.
        otherwise: the level where there is hardly any lung.
    """
    found = lung_of(under, grain, inside & (alpha == 0)) or lung_of(under, grain, inside)
    if found is not None:
        return found
    return (float(np.median(under[inside])) if inside.sum() >= FEWEST else otherwise), 0.0


def matched(
    hu: NDArray[np.float32], grain: NDArray[np.float32], stamp: Stamp, level: float, noise: float
) -> tuple[NDArray[np.float32], float]:
    """The nodule as it would look in the slice's lung, and the standard deviation of its noise then.

    A nodule's pixel is a mixture of soft tissue and lung: its own lung is replaced by that of the place
    (``level``), so that solid parts keep their HU and ground glass gets lighter or darker with the lung.
    Grain that is then stronger than the slice's is calmed.
    """
    background = min(stamp.background, SOFT_TISSUE - 100)
    stretch = float(np.clip((SOFT_TISSUE - level) / (SOFT_TISSUE - background), *STRETCH))
    own = stretch * stamp.noise
    calm = float(np.clip(noise / own, CALMEST, 1)) if own > 0 else 1.0
    values = hu - np.float32(1 - calm) * grain if calm < 1 else hu
    return np.float32(SOFT_TISSUE) + np.float32(stretch) * (values - np.float32(SOFT_TISSUE)), own * calm


def denser(
    under: NDArray[np.float32], values: NDArray[np.float32], level: float, noise: float
) -> NDArray[np.float32]:
    """How much of the slice stays, 0 to 1: where it is denser than what is laid on it.

    So vessels and walls run up to the nodule; through soft tissue nothing shows, however dense.

    Args:
        under, values: (h, w) HU of slice and nodule, smoothed.
        level, noise: HU of the lung, and the standard deviation of the noise of either.
    """
    least = np.float32(max(DENSER, OVER_NOISE * noise))
    opacity = ((values - np.float32(level)) / np.float32(max(SOFT_TISSUE - level, 100.0))).clip(0, 1)
    return (1 - opacity**2) * ((under - values) / least - 1).clip(0, 1)


def missing_noise(alpha: NDArray[np.float32], noise: float, own: float) -> NDArray[np.float32]:
    """Standard deviation, per pixel, of the noise that a mixture lacks beside the slice's own.

    Mixing leaves the variance (1 - a)^2 noise^2 + a^2 own^2, and noise^2 is wanted.

    Args:
        own: of the nodule as it is mixed: resampled, stretched and calmed.
    """
    lacking = alpha * (2 - alpha) * np.float32(noise**2) - alpha**2 * np.float32(own**2)
    return np.sqrt(np.maximum(lacking, 0))
