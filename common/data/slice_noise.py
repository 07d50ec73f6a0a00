"""Input noise of generators for each slice: one picture's own, or a field through a whole volume.

A generator that makes fine texture from noise makes another texture in every slice of a volume from
independent noise, and the same one (columns along the slice axis) from constant noise. The noise of a volume
is therefore white within a slice, as in training, and correlated across slices over a few mm: correlation
exp(-(d / 4 mm)^2) at distance d, which is 0.94 at 1 mm, 0.21 at 5 mm, 0.002 at 10 mm.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from common.rng import make_rng

KNOT_MM = 2.0
"""Distance in mm of the independent planes that are mixed, and standard deviation of the weights."""
REACH = 4
"""Planes on each side that are mixed; the weight of the next is below 4e-6 of the nearest."""


def noise_coordinates(name: str, mm: float = math.nan) -> dict[str, Any]:
    """Returns the entries ``noise_key`` and ``noise_mm`` of an item, which determine the noise of a slice.

    Args:
        name: file name without folder; equal names have equal noise.
        mm: position of the slice along the slice axis, rounded to 0.001 mm (the last digits of a header
            change with the order of the axes); NaN for a picture, which has no neighbours.
    """
    return {"noise_key": zlib.crc32(name.encode()), "noise_mm": round(float(mm), 3)}


def slice_noise(seed: int, key: int, mm: float, channels: int, size: int) -> np.ndarray:
    """Returns N(0, 1) noise of one slice, float32 (channels, size, size).

    Args:
        seed: different seeds give different images of the same files.
        key, mm: from `noise_coordinates`.

    Example:
        >>> here, near = (slice_noise(0, key=7, mm=mm, channels=1, size=64) for mm in (10.0, 11.0))
        >>> round(float((here * near).mean()), 1)
        0.9
    """
    if math.isnan(mm):
        return _plane(seed, key, None, channels, size)
    middle = round(mm / KNOT_MM)
    knots = np.arange(middle - REACH, middle + REACH + 1)
    weights = np.exp(-((mm / KNOT_MM - knots) ** 2) / 2)
    weights /= np.sqrt((weights**2).sum())  # to standard deviation 1
    noise = np.zeros((channels, size, size), np.float32)
    for knot, weight in zip(knots, weights, strict=True):
        noise += np.float32(weight) * _plane(seed, key, int(knot), channels, size)
    return noise


@lru_cache(maxsize=4 * REACH)
def _plane(seed: int, key: int, knot: int | None, channels: int, size: int) -> np.ndarray:
    """Returns an independent plane; neighbouring slices share most of them."""
    where = (key,) if knot is None else (key, "knot", knot + 2**31)  # numpy takes no negative numbers
    return make_rng(seed, "noise", *where).standard_normal((channels, size, size), dtype=np.float32)
