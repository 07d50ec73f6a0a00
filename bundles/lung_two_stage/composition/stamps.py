"""A nodule crop brought to a slice's pixel size, centred on a pixel, with what surrounds it measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter, maximum_filter

from bundles.lung_two_stage.composition.grain import grain_of, noise_of

BORDER = 4
"""Pixels around the nodule that come along: there the lung beside it is measured."""
FEWEST = 16
"""Pixels without nodule that it takes to measure the lung in the crop."""
UNTOUCHED = 0.05
"""Alpha up to which a pixel of a resampled crop shows the lung beside the nodule."""


@dataclass(frozen=True)
class Stamp:
    """A nodule ready to be laid on a slice with its middle pixel on the wanted place.

    Args:
        hu: (n, n) float32, n odd.
        alpha: (n, n) float32 in [0, 1], 0 at the border.
        grain: (n, n) float32, the finest texture of ``hu``, see `grain_of`.
        background: HU of the lung around it in its own scan.
        noise: standard deviation there, HU.
    """

    hu: NDArray[np.float32]
    alpha: NDArray[np.float32]
    grain: NDArray[np.float32]
    background: float
    noise: float

    def turned(self, turn: Callable[[np.ndarray], np.ndarray]) -> Stamp:
        """Flipped or rotated about the middle pixel."""
        return replace(self, hu=turn(self.hu), alpha=turn(self.alpha), grain=turn(self.grain))


def make_stamp(
    hu: NDArray[np.int16],
    alpha: NDArray[np.uint8],
    centre: NDArray[np.float64],
    crop_mm: float,
    spacing_mm: float,
) -> Stamp:
    """Resamples a crop linearly, after smoothing where it gets coarser.

    Args:
        hu, alpha: (S, S) of the crop.
        centre: (2,) row and column, in the crop, that the middle pixel of the stamp shows.
        crop_mm, spacing_mm: side of a pixel in the crop and in the stamp.
    """
    step = spacing_mm / crop_mm
    reach = np.abs(np.argwhere(alpha > 0) - centre).max(initial=0.0)  # pixels of the crop
    half = int(np.ceil(reach / step)) + BORDER
    start = centre - half * step
    smoothing = 0.5 * max(step**2 - 1, 0.0) ** 0.5

    def resampled(array: np.ndarray, mode: str) -> NDArray[np.float32]:
        source = array.astype(np.float32)
        smooth = gaussian_filter(source, smoothing) if smoothing > 0.1 else source
        size = 2 * half + 1
        return affine_transform(smooth, [step, step], start, (size, size), order=1, mode=mode)

    values, share = resampled(hu, "nearest"), resampled(alpha, "constant") * np.float32(1 / 255)
    grain = grain_of(values)
    beside = maximum_filter(share, 3) <= UNTOUCHED  # where the nodule's edge is no part of the grain
    lung = beside & (resampled(np.ones_like(alpha), "constant") > 0.999)
    if lung.sum() < FEWEST:  # the nodule fills its crop
        return Stamp(values, share, grain, float(np.percentile(values, 10)), 0.0)
    return Stamp(values, share, grain, float(np.median(values[lung])), noise_of(grain[lung]))
