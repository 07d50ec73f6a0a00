"""Laying a nodule on a slice so that it belongs there: contrast and noise of the place, soft edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.composition.grain import grain_of, make_noise, noise_of
from bundles.lung_two_stage.composition.stamps import Stamp

SOFT_TISSUE = 50.0
"""HU that are the same in every scan; what is less dense is a mixture of this and the lung."""
STRETCH = (0.5, 2.0)
"""Bounds of what matching may do to contrast."""
CALMEST = 0.5
"""Least share of a nodule's own grain that is kept, however calm the slice."""
RANGE = (-1024, 3071)
"""HU of a 12-bit scanner."""
FEWEST = 16
"""Lung pixels around a place that it takes to measure it."""


def blend(
    image: NDArray[np.int16],
    lung: NDArray[np.uint8],
    stamp: Stamp,
    place: tuple[int, int],
    random: np.random.Generator,
) -> tuple[tuple[slice, slice], NDArray[np.float32]]:
    """Lays a nodule on a slice, in place; only pixels with alpha above 0 change.

    Args:
        image: (H, W) HU, changed.
        lung: (H, W), 0 outside: there nothing is laid.
        place: row and column of the nodule's middle.
        random: draws the noise.
    Returns:
        The box that the stamp covers, and alpha within it.
    """
    box, part = overlap(image.shape, stamp.hu.shape[0], place)
    under, inside = image[box].astype(np.float32), lung[box] > 0
    alpha = stamp.alpha[part] * inside
    level, noise = surroundings(under, inside, stamp.background)
    values = matched(stamp.hu[part], stamp.grain[part], stamp, level, noise)
    added = missing_noise(alpha, noise, stamp.noise) * make_noise(random, stamp.hu.shape[0])[part]
    mixed = under + alpha * (values - under) + added
    np.copyto(image[box], np.rint(mixed.clip(*RANGE)).astype(np.int16), where=alpha > 0)
    return box, alpha


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
    under: NDArray[np.float32], inside: NDArray[np.bool_], otherwise: float
) -> tuple[float, float]:
    """Level and noise of the lung at a place, HU.

    Args:
        under: the slice there.
        inside: where that is lung.
        otherwise: the level where there is hardly any.
    """
    if inside.sum() < FEWEST:
        return otherwise, 0.0
    return float(np.median(under[inside])), noise_of(grain_of(under)[inside])


def matched(
    hu: NDArray[np.float32], grain: NDArray[np.float32], stamp: Stamp, level: float, noise: float
) -> NDArray[np.float32]:
    """The nodule as it would look in the slice's lung.

    A nodule's pixel is a mixture of soft tissue and lung: its own lung is replaced by that of the place
    (``level``), so that solid parts keep their HU and ground glass gets lighter or darker with the lung.
    Grain stronger than the slice's is calmed.
    """
    own = min(stamp.background, SOFT_TISSUE - 100)
    stretch = float(np.clip((SOFT_TISSUE - level) / (SOFT_TISSUE - own), *STRETCH))
    calm = float(np.clip(noise / stamp.noise, CALMEST, 1)) if stamp.noise > 0 else 1.0
    values = hu - np.float32(1 - calm) * grain if calm < 1 else hu
    return np.float32(SOFT_TISSUE) + np.float32(stretch) * (values - np.float32(SOFT_TISSUE))


def missing_noise(alpha: NDArray[np.float32], noise: float, own: float) -> NDArray[np.float32]:
    """Standard deviation, per pixel, of the noise that a mixture lacks beside the slice's own.

    Mixing leaves the variance (1 - a)^2 noise^2 + a^2 own^2, and noise^2 is wanted.
    """
    lacking = alpha * (2 - alpha) * np.float32(noise**2) - alpha**2 * np.float32(own**2)
    return np.sqrt(np.maximum(lacking, 0))
