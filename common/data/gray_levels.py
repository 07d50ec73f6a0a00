"""HU of 8-bit chest pictures whose scale is unknown: lung and soft tissue say what their gray means.

Pictures cut from CT are often stretched from the least to the largest value of each slice, so that one gray
is another HU in every picture. The scale is still linear, and two of its values can be found: the gray of the
lung around the nodule, and that of muscle and blood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, gaussian_filter1d
from scipy.signal import find_peaks
from skimage.filters import threshold_otsu

from common.data.intensity import Window

LUNG, TISSUE = -840.0, 30.0
"""HU of lung between the vessels, and of muscle and blood: the medians of LIDC-IDRI's scans."""
NEAR = 24
"""Pixels around a nodule in which its lung is looked for."""
FEWEST = 64
"""Pixels that a level is measured in."""
SMOOTH = 0.012
"""Of the histogram of soft tissue, as a share of the picture's range: noise and the grays' steps."""
BESIDE = 0.4
"""Height of a mode of the histogram, as a share of the largest, from which it counts."""
LEAST_STEP = 0.1
"""Of the range: levels that are closer are not lung and tissue."""


def levels_of(gray: NDArray[np.floating], nodule: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The grays of lung and of soft tissue; None where the picture does not show both.

    Args:
        gray: (H, W), linear in HU. Its least value is what lies outside the scan, or air; it is not counted.
        nodule: (H, W): the lung beside it is the one that counts.
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
    """HU (H, W) with lung at `LUNG` and soft tissue at `TISSUE`.

    Args:
        gray, nodule: as of `levels_of`.
        otherwise: whose ends are the least and the largest gray of a picture that does not show both.
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
    """The gray of muscle and blood: the brighter of the histogram's modes, where fat has another one.

    Bone makes no mode, and a mode less than `BESIDE` as high as the largest does not count.
    """
    counts, edges = np.histogram(values, 256)
    width = SMOOTH * span / max(edges[1] - edges[0], 1e-9)
    smooth = gaussian_filter1d(np.pad(counts.astype(np.float64), 1), width, mode="constant")
    places, _ = find_peaks(smooth, height=BESIDE * smooth.max())
    place = min(int(places[-1]) if len(places) else int(smooth.argmax()), len(counts)) - 1
    return float(edges[max(place, 0)] + edges[max(place, 0) + 1]) / 2
