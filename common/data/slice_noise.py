"""The noise of each slice, by the name of its file: one picture's own, or a field through a whole volume.

A generator that draws fine texture from noise would draw it anew in every slice of a volume, or, from noise
that is always the same, the same in all: straight columns along the slice axis. The noise of a volume is
therefore a field: white within a slice, as in training, and correlated across slices over a few mm, with
correlation exp(-(d / 4 mm)^2) at the distance d: 0.94 at 1 mm, 0.21 at 5 mm, 0.002 at 10 mm.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from common.rng import make_rng

KNOT_MM = 2.0
"""Distance of the independent planes that a volume's noise is mixed of, and the deviation of the mixture."""
REACH = 4
"""So many planes on each side are mixed; the weight of the next is below 4e-6 of the nearest one's."""


def noise_coordinates(name: str, mm: float = math.nan) -> dict[str, Any]:
    """What decides a slice's noise, as entries of an item: ``noise_key`` and ``noise_mm``.

    Args:
        name: of the file, without its folder: equal names have equal noise wherever they lie.
        mm: of a slice in a volume, along the slice axis; NaN for a picture, which has no neighbours. Rounded
            to 0.001 mm: a header's last digits change when a scan is stored with other axes.
    """
    return {"noise_key": zlib.crc32(name.encode()), "noise_mm": round(float(mm), 3)}


def slice_noise(seed: int, key: int, mm: float, channels: int, size: int) -> np.ndarray:
    """N(0, 1) noise of one slice, float32 (channels, size, size).

    Args:
        seed: another one gives other images of the same files.
        key, mm: from `noise_coordinates`.
    """
    if math.isnan(mm):
        return _plane(seed, key, None, channels, size)
    middle = round(mm / KNOT_MM)
    knots = np.arange(middle - REACH, middle + REACH + 1)
    weights = np.exp(-((mm / KNOT_MM - knots) ** 2) / 2)
    weights /= np.sqrt((weights**2).sum())  # so that every slice has deviation 1
    noise = np.zeros((channels, size, size), np.float32)
    for knot, weight in zip(knots, weights, strict=True):
        noise += np.float32(weight) * _plane(seed, key, int(knot), channels, size)
    return noise


@lru_cache(maxsize=4 * REACH)
def _plane(seed: int, key: int, knot: int | None, channels: int, size: int) -> np.ndarray:
    """An independent plane; neighbouring slices share most of theirs."""
    where = (key,) if knot is None else (key, "knot", knot + 2**31)  # numpy takes no negative numbers
    return make_rng(seed, "noise", *where).standard_normal((channels, size, size), dtype=np.float32)
