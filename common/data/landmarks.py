"""Two gray levels that every chest CT slice shows: aerated lung and soft tissue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter1d

# Nominal densities the two peaks stand for: inspired lung parenchyma, and blood and muscle.
LUNG_HU = -860.0
TISSUE_HU = 40.0

BINS = 256
SMOOTHING = 3.0
# Pixels clipped to black or white say nothing about the peaks, unless the tissue itself is clipped: bone
# alone fills less than this share of a slice.
CLIPPED_MARGIN = 3
CLIPPED_TISSUE_SHARE = 0.2
# Of a scan's slices the least diseased ones show aerated lung.
LUNG_QUANTILE = 0.25


def slice_peaks(image: np.ndarray) -> tuple[float, float]:
    """(lung, soft tissue) gray levels of one slice in [0, 1]: the peaks below and above Otsu's threshold."""
    counts = np.histogram(image, bins=BINS, range=(0.0, 1.0))[0].astype(np.float64)
    white = counts[-CLIPPED_MARGIN:].sum() / max(counts.sum(), 1.0)
    counts[:CLIPPED_MARGIN] = counts[-CLIPPED_MARGIN:] = 0.0
    if counts.sum() == 0.0:
        return 0.0, 1.0
    smooth = gaussian_filter1d(counts, SMOOTHING)
    threshold = _otsu(counts)
    lung = int(np.argmax(smooth[:threshold]))
    tissue = BINS - 1 if white > CLIPPED_TISSUE_SHARE else threshold + int(np.argmax(smooth[threshold:]))
    return (lung + 0.5) / BINS, (tissue + 0.5) / BINS


def scan_landmarks(images: Sequence[np.ndarray], ratios: tuple[float, float]) -> list[tuple[float, float]]:
    """(lung, soft tissue) levels for each slice of one scan.

    Soft tissue is read off each slice, because some exports scale every slice by its own maximum. Lung is
    read off the scan (its least diseased slices), as a ratio to soft tissue: slices full of ground glass have
    no peak of aerated lung, and the ratio outlives such a scaling.

    Args:
        images: slices (H, W) in [0, 1].
        ratios: believable (lowest, highest) lung-to-tissue ratio; others are clipped.
    """
    peaks = [slice_peaks(image) for image in images]
    ratio = min(max(_ratio(peaks), ratios[0]), ratios[1])
    return [(ratio * tissue, tissue) for _, tissue in peaks]


def scan_ratio(images: Sequence[np.ndarray]) -> float:
    """The lung-to-tissue ratio of gray levels of one scan's slices, (H, W) in [0, 1]."""
    return _ratio([slice_peaks(image) for image in images])


def _ratio(peaks: Sequence[tuple[float, float]]) -> float:
    return float(np.quantile([lung / tissue for lung, tissue in peaks], LUNG_QUANTILE))


def _otsu(counts: np.ndarray) -> int:
    """The bin that parts the histogram best (Otsu 1979): the largest variance between the classes."""
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    moment = np.cumsum(counts * np.arange(BINS))
    valid = (below > 0) & (above > 0)
    if not valid.any():
        return BINS // 2
    distance = moment[-1] * below - moment[:-1] * counts.sum()
    between = np.where(valid, distance**2 / np.where(valid, below * above, 1.0), 0.0)
    return int(np.argmax(between)) + 1
