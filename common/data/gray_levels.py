"""HU of 8-bit chest pictures with an unknown window, from the gray of lung and soft tissue.

Pictures cut from CT are often stretched to the minimum and maximum of each slice, so that a gray value is
another HU in every picture. The scale is still linear: two of its values are the gray of the lung around the
nodule and that of muscle and blood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, gaussian_filter1d
from scipy.signal import find_peaks
from skimage.filters import threshold_otsu

from common.data.intensity import Window

LUNG, TISSUE = -840.0, 30.0
"""Median HU of the two levels in 240 crops of LIDC-IDRI with known HU."""
NEAR = 24
"""Width in pixels of the ring around a nodule in which the lung is measured."""
FEWEST = 64
"""Fewest pixels of a level."""
SMOOTH = 0.012
"""Smoothing of the histogram of soft tissue, as a share of the range of the picture."""
BESIDE = 0.4
"""Least height of a mode of the histogram, as a share of the largest."""
LEAST_STEP = 0.1
"""Least distance of the levels of lung and tissue, as a share of the range."""


def levels_of(gray: NDArray[np.floating], nodule: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Returns the gray values of lung and of soft tissue; None if the picture does not show both.

    Args:
        gray: (H, W), linear in HU. Its minimum is outside the scan, or air, and is ignored.
        nodule: (H, W); the lung is measured around it.
    """
    values = np.asarray(gray, np.float64)
    span = float(values.max() - values.min())
    shown = values > values.min()
    if shown.sum() < 2 * FEWEST or span <= 0:
        return None
    smooth = gaussian_filter(values, 1.0)
    between = float(threshold_otsu(smooth[shown]))
    beside = binary_dilation(nodule, iterations=NEAR) & ~binary_dilation(nodule, iterations=3)
    lung = values[(beside if nodule.any() else shown) & shown & (smooth < between)]
    tissue = values[shown & (smooth > between)]
    if min(lung.size, tissue.size) < FEWEST:
        return None
    found = float(np.median(lung)), _muscle(tissue, span)
    return found if found[1] - found[0] >= LEAST_STEP * span else None


def hu_by_levels(
    gray: NDArray[np.floating], nodule: NDArray[np.bool_], otherwise: Window
) -> NDArray[np.int16]:
    """Converts a picture to HU (H, W) with lung at `LUNG` and soft tissue at `TISSUE`.

    Args:
        gray, nodule: see `levels_of`.
        otherwise: window for the minimum and maximum of a picture that does not show both.

    Example:
        >>> gray = np.tile(np.repeat([20.0, 200.0], 20), (20, 1))  # lung, soft tissue
        >>> gray[0, 0] = 0  # outside the scan
        >>> hu_by_levels(gray, np.zeros(gray.shape, bool), Window(-1000, 400))[10, [0, 39]].tolist()
        [-840, 32]
    """
    values = np.asarray(gray, np.float64)
    found = levels_of(values, nodule)
    if found is None:
        low, step = float(values.min()), max(float(np.ptp(values)), 1.0)
        hu = otherwise.lower + (values - low) / step * otherwise.width
    else:
        hu = LUNG + (values - found[0]) * (TISSUE - LUNG) / (found[1] - found[0])
    return np.rint(hu.clip(-1024, 3071)).astype(np.int16)


def _muscle(values: NDArray[np.float64], span: float) -> float:
    """Returns the gray of muscle and blood: the brightest mode of the histogram (fat has a darker one)."""
    counts, edges = np.histogram(values, 256)
    width = SMOOTH * span / max(edges[1] - edges[0], 1e-9)
    smooth = gaussian_filter1d(np.pad(counts.astype(np.float64), 1), width, mode="constant")
    places, _ = find_peaks(smooth, height=BESIDE * smooth.max())
    place = min(int(places[-1]) if len(places) else int(smooth.argmax()), len(counts)) - 1
    return float(edges[max(place, 0)] + edges[max(place, 0) + 1]) / 2
