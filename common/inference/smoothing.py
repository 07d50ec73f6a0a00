"""Less flicker: smoothing across slices that stops at the borders of structures."""

from __future__ import annotations

import math

import numpy as np

from common.errors import UserError

REACH = 3  # standard deviations: what lies beyond weighs less than 1 %


def check_sigma(sigma: float) -> float:
    """``sigma`` as a number.

    Raises:
        UserError: it is none, or negative.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 <= sigma < math.inf:
        raise UserError(f"smooth_slices {sigma!r}: give the width in slices, such as 1.0, or 0 for none")
    return float(sigma)


def smooth_across(volume: np.ndarray, labels: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian along the slice axis, in which only voxels of the same label count.

    A voxel becomes the weighted mean of those voxels above and below it that have its own label. So
    structures never mix and their borders stay where they are; constant structures stay as they are. At the
    ends of the volume, as at borders, the weights of what is there are scaled to 1.

    Args:
        volume: (N, H, W), slices first.
        labels: (N, H, W), any integers.
        sigma: standard deviation in slices; 0 gives back ``volume`` itself.
    Returns:
        (N, H, W) in the volume's number type, integers rounded. Memory beyond it: a few slices.
    Raises:
        UserError: ``sigma`` is negative or no number.
    """
    if check_sigma(sigma) == 0:
        return volume
    smooth = np.empty_like(volume)
    for place in range(len(volume)):
        mean = _weighted_mean(volume, labels, place, sigma)
        smooth[place] = np.rint(mean) if volume.dtype.kind in "iu" else mean
    return smooth


def _weighted_mean(volume: np.ndarray, labels: np.ndarray, place: int, sigma: float) -> np.ndarray:
    """Slice ``place`` (H, W) from itself and its neighbours, float32."""
    reach = math.ceil(REACH * sigma)
    total, weights = np.zeros((2, *volume.shape[1:]), dtype=np.float32)
    for other in range(max(0, place - reach), min(len(volume), place + reach + 1)):
        weight = np.float32(math.exp(-0.5 * ((other - place) / sigma) ** 2))
        same = np.where(labels[other] == labels[place], weight, np.float32(0))  # (H, W)
        total += same * volume[other]
        weights += same
    return total / weights
