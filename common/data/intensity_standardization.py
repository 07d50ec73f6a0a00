"""Brings slices that were exported through different windows to one common look.

Two methods. ``landmarks`` finds two anatomical gray levels, aerated lung and soft tissue, and maps them
(linearly) to where the chosen HU window puts them: a two-landmark form of Nyul and Udupa (1999), with peaks
for percentiles, because percentiles move with the share of lung in a slice. Its result is close to calibrated
HU. ``histogram`` maps the quantiles of a scan to the mean quantiles of the training scans; it dims lesions
where they fill much of a scan. Values that are HU already need neither and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from common.data.intensity import Window
from common.errors import UserError

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


METHODS = ("none", "landmarks", "histogram")
QUANTILES = np.linspace(0.0, 1.0, 65)
# Lung-to-tissue ratios are believed within the range of the training scans, widened by this share.
RATIO_MARGIN = 0.1
# Before anything was learnt any ratio is believed.
ANY_RATIO = (0.0, 0.9)


class Standardiser:
    """Maps [0, 1] slices of one scan at a time; learns from the training split alone.

    Args:
        method: ``none``, ``landmarks`` or ``histogram``.
        window: the HU window of the result; ``landmarks`` puts lung and soft tissue where they lie in it.
    Raises:
        UserError: unknown method.
    """

    def __init__(self, method: str, window: Window) -> None:
        if method not in METHODS:
            raise UserError(f"standardise {method!r} is unknown; choose one of {', '.join(METHODS)}")
        self.method, self.window = method, window
        self.ratios: tuple[float, float] = ANY_RATIO
        self.quantiles: list[float] | None = None

    def fit(self, images_by_patient: Mapping[str, Sequence[np.ndarray]]) -> Standardiser:
        """Learns from the training scans: lists of (H, W) slices in [0, 1], keyed by scan."""
        scans = list(images_by_patient.values())
        if self.method == "landmarks" and scans:
            ratios = [scan_ratio(scan) for scan in scans]
            self.ratios = (min(ratios) * (1.0 - RATIO_MARGIN), min(max(ratios) * (1.0 + RATIO_MARGIN), 0.9))
        if self.method == "histogram" and scans:
            self.quantiles = np.mean([_quantiles(scan) for scan in scans], axis=0).tolist()
        return self

    def apply_scan(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The slices of one scan, (H, W) in [0, 1], in the common look: float32 in [0, 1]."""
        if self.method == "landmarks":
            levels = scan_landmarks(images, self.ratios)
            return [self._landmark_map(image, *level) for image, level in zip(images, levels, strict=True)]
        if self.method == "histogram" and self.quantiles is not None:
            source = _quantiles(images)
            return [_match(image, source, self.quantiles) for image in images]
        return [np.asarray(image, dtype=np.float32) for image in images]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """One slice whose scan is unknown."""
        return self.apply_scan([image])[0]

    def state(self) -> dict[str, Any]:
        """Plain numbers (JSON) from which `from_state` builds the same standardiser."""
        return {
            "method": self.method,
            "window": [self.window.lower, self.window.upper],
            "ratios": list(self.ratios),
            "quantiles": self.quantiles,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Standardiser:
        """The inverse of `state`."""
        standardiser = cls(state["method"], Window(*state["window"]))
        standardiser.ratios = (float(state["ratios"][0]), float(state["ratios"][1]))
        standardiser.quantiles = state["quantiles"]
        return standardiser

    def _landmark_map(self, image: np.ndarray, lung: float, tissue: float) -> np.ndarray:
        target_lung = (LUNG_HU - self.window.lower) / self.window.width
        target_tissue = (TISSUE_HU - self.window.lower) / self.window.width
        gain = (target_tissue - target_lung) / (tissue - lung)
        return np.clip((np.asarray(image) - lung) * gain + target_lung, 0.0, 1.0).astype(np.float32)


def _quantiles(scan: Sequence[np.ndarray]) -> np.ndarray:
    return np.quantile(np.concatenate([np.ravel(image) for image in scan]), QUANTILES)


def _match(image: np.ndarray, source: np.ndarray, target: Sequence[float]) -> np.ndarray:
    """Piecewise-linear quantile mapping. Repeated source levels (clipped pixels) map to their mean."""
    levels, first = np.unique(np.round(source, 6), return_index=True)
    counts = np.diff(np.append(first, len(source)))
    means = np.add.reduceat(np.asarray(target), first) / counts
    return np.interp(image, levels, means).astype(np.float32)
