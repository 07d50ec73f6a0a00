"""Noise of CT slices: how strong it is, and more of its kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, uniform_filter

NEIGHBOUR = 0.2
"""Weight of the neighbours in made noise, the pixel itself has 1: as after a soft reconstruction filter."""
_ROW = np.array([NEIGHBOUR, 1.0, NEIGHBOUR]) / np.sqrt(1 + 2 * NEIGHBOUR**2)
MAD_TO_DEVIATION = 1.4826
"""Of a normal distribution."""
AERATED = -500
"""HU below which a pixel is lung."""
FEWEST = 16
"""Pixels of lung that it takes to measure it."""
TRIMMINGS, TRIMMED, BELOW = 3, 2.0, 0.16
"""Rounds in which what is more than so many standard deviations above the median is left out; the share of a
normal distribution that is more than one below."""
EDGE = 4.0
"""Standard deviations above the level from which a pixel is part of something else."""


def grain_of(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """The finest texture: every pixel less the mean of its 3 x 3 neighbourhood."""
    return hu - uniform_filter(hu, 3, mode="nearest")


def noise_of(grain: NDArray[np.float32]) -> float:
    """Standard deviation in HU of the noise that left this grain; few edges among it do not count.

    Args:
        grain: any shape, from `grain_of`, of a place without much structure.
    """
    return float(np.median(np.abs(grain))) * MAD_TO_DEVIATION / _LEFT


def lung_of(
    hu: NDArray[np.float32], grain: NDArray[np.float32], there: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Level and noise in HU of the lung ``there``; None where too few pixels show lung alone.

    Vessels, and the wall beside a nodule that touches it, do not count.

    Args:
        hu, grain: the picture and its finest texture.
        there: where to look; any shape, as the two.
    """
    lung = hu[there & (hu < AERATED)]
    if lung.size < FEWEST:
        lung = hu[there]
    if lung.size < FEWEST:
        return None
    ordered = np.sort(lung)
    for _ in range(TRIMMINGS):  # some vessel or wall makes pixels brighter: the lower half tells the spread
        middle = ordered[len(ordered) // 2]
        spread = middle - ordered[int(len(ordered) * BELOW)]
        ordered = ordered[: np.searchsorted(ordered, middle + TRIMMED * spread, side="right")]
    level = float(np.median(ordered))
    plain = there & (maximum_filter(hu, 3) <= level + EDGE * max(float(spread), 1.0))  # no edge in its grain
    return (level, noise_of(grain[plain])) if plain.sum() >= FEWEST else None


def make_noise(random: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Noise (side, side) of mean 0 and standard deviation 1, correlated between neighbours."""
    white = random.standard_normal((side + 2, side + 2), dtype=np.float32)
    a, b, c = (np.float32(weight) for weight in _ROW)
    rows = a * white[:-2] + b * white[1:-1] + c * white[2:]  # (side, side + 2)
    return a * rows[:, :-2] + b * rows[:, 1:-1] + c * rows[:, 2:]


def _left() -> float:
    """Standard deviation of the grain of `make_noise`: its filter, less the mean over 3 x 3 of it."""
    kernel = np.zeros((7, 7), np.float32)
    kernel[2:5, 2:5] = np.outer(_ROW, _ROW)
    return float(np.sqrt((grain_of(kernel) ** 2).sum()))


_LEFT = _left()
