"""Noise of CT slices: how strong it is, and more of its kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

NEIGHBOUR = 0.2
"""Weight of the neighbours in made noise, the pixel itself has 1: as after a soft reconstruction filter."""
_ROW = np.array([NEIGHBOUR, 1.0, NEIGHBOUR]) / np.sqrt(1 + 2 * NEIGHBOUR**2)
MAD_TO_DEVIATION = 1.4826
"""Of a normal distribution."""


def grain_of(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """The finest texture: every pixel less the mean of its 3 x 3 neighbourhood."""
    return hu - uniform_filter(hu, 3, mode="nearest")


def noise_of(grain: NDArray[np.float32]) -> float:
    """Standard deviation in HU of the noise that left this grain; few edges among it do not count.

    Args:
        grain: any shape, from `grain_of`, of a place without much structure.
    """
    return float(np.median(np.abs(grain))) * MAD_TO_DEVIATION / _LEFT


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
