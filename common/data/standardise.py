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

from common.data.intensity import Window
from common.data.landmarks import LUNG_HU, TISSUE_HU, scan_landmarks, scan_ratio
from common.errors import UserError

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
