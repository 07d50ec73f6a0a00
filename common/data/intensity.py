"""Intensities: HU windows, the unit range of files, the range of networks, and pictures in unknown windows.

Slices that were exported through different, unrecorded windows are brought to one standard by
`Standardiser`, by one of two methods. ``landmarks`` maps two anatomical gray levels, aerated lung and soft
tissue, linearly to where the HU window puts them: Nyul and Udupa (1999) with two landmarks, and with peaks
for percentiles, which move with the share of lung in a slice. The result is close to calibrated HU.
``histogram`` maps the quantiles of a scan to the mean quantiles of the training scans; it dims lesions that
fill much of a scan. HU need neither.

`hu_by_levels` estimates HU of single pictures that were stretched to their own minimum and maximum. The scale
is still linear: two of its values are the gray of the lung around a nodule and that of muscle and blood.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, gaussian_filter1d

from common.errors import UserError

EIGHT_BIT_WHITE = 255.0


@dataclass(frozen=True)
class Window:
    """A HU window: ``lower`` becomes 0 (black), ``upper`` becomes 1 (white)."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise UserError(
                f"window {self.lower}..{self.upper}: the lower end must be below the upper end (HU)"
            )

    @property
    def width(self) -> float:
        """Extent in HU."""
        return self.upper - self.lower


WINDOWS: dict[str, Window] = {
    "lung": Window(-1000, 400),
    "lung_wide": Window(-1350, 150),
    "mediastinum": Window(-160, 240),
    "soft_tissue": Window(-150, 250),
    "bone": Window(-450, 1050),
    "angiography": Window(-200, 600),
    "wide": Window(-1024, 3071),
}


def window_by_name(window: str | Window | Sequence[float]) -> Window:
    """The window of a preset's name or of a (lower, upper) pair in HU; a `Window` itself is returned.

    Raises:
        UserError: an unknown name, not two numbers, or an empty range.

    Example:
        >>> window_by_name("lung") == window_by_name([-1000, 400])
        True
    """
    if isinstance(window, Window):
        return window
    if isinstance(window, str):
        if window not in WINDOWS:
            raise UserError(
                f"window {window!r} is unknown; choose {', '.join(WINDOWS)} or give [lower, upper] in HU"
            )
        return WINDOWS[window]
    if len(window) != 2:
        raise UserError(f"window {window!r}: give two numbers, [lower, upper] in HU")
    return Window(float(window[0]), float(window[1]))


def parse_window(words: Sequence[str]) -> Window:
    """The window of a command line's words: a preset's name, or two numbers in HU.

    Raises:
        UserError: neither of them.

    Example:
        >>> parse_window(["-1000", "400"])
        Window(lower=-1000.0, upper=400.0)
    """
    if len(words) == 1 and "," not in words[0]:
        return window_by_name(words[0])
    try:
        return window_by_name([float(word) for word in " ".join(words).replace(",", " ").split()])
    except ValueError as error:
        raise UserError(f"--window {' '.join(words)}: give one name or two numbers in HU") from error


def to_unit(
    array: np.ndarray, window: Window, is_hu: bool, source_range: tuple[float, float] = (0.0, 255.0)
) -> np.ndarray:
    """Maps raw values to float32 in [0, 1], clipped.

    Args:
        array: raw values, any shape.
        window: used where the values are HU.
        is_hu: whether the values are HU.
        source_range: values of black and white where they are not HU (8 bits: 0..255). HU are then nominal:
            0 stands for the window's lower end, 1 for its upper end.

    Example:
        >>> to_unit(np.array([-1500, -300, 400]), Window(-1000, 400), is_hu=True).tolist()
        [0.0, 0.5, 1.0]
    """
    lower, upper = (window.lower, window.upper) if is_hu else source_range
    unit = (np.asarray(array, dtype=np.float32) - np.float32(lower)) * np.float32(1.0 / (upper - lower))
    return np.clip(unit, 0.0, 1.0, out=unit)


def to_network(unit: np.ndarray) -> np.ndarray:
    """Maps [0, 1] to [-1, 1], float32."""
    return np.asarray(unit, dtype=np.float32) * np.float32(2.0) - np.float32(1.0)


def from_network(values: np.ndarray) -> np.ndarray:
    """Maps [-1, 1] to [0, 1], float32, clipped."""
    return np.clip((np.asarray(values, dtype=np.float32) + 1.0) / 2.0, 0.0, 1.0)


def to_hu(unit: np.ndarray, window: Window) -> np.ndarray:
    """Maps [0, 1] to HU within the window, rounded to int16."""
    hu = np.asarray(unit, dtype=np.float64) * window.width + window.lower
    return np.rint(hu).astype(np.int16)


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
    """(lung, soft tissue) gray levels of a slice in [0, 1]: the peaks below and above Otsu's threshold."""
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
    """(lung, soft tissue) gray levels of each slice of one scan.

    The level of soft tissue is that of each slice, because some exports scale every slice by its own maximum.
    The level of lung is a ratio to soft tissue, from the least diseased slices of the scan: slices full of
    ground glass have no peak of aerated lung.

    Args:
        images: slices (H, W) in [0, 1].
        ratios: plausible (lowest, highest) lung-to-tissue ratio; others are clipped.
    """
    peaks = [slice_peaks(image) for image in images]
    ratio = min(max(_ratio(peaks), ratios[0]), ratios[1])
    return [(ratio * tissue, tissue) for _, tissue in peaks]


def _ratio(peaks: Sequence[tuple[float, float]]) -> float:
    return float(np.quantile([lung / tissue for lung, tissue in peaks], LUNG_QUANTILE))


def _otsu(counts: np.ndarray) -> int:
    """The bin with the largest variance between the classes below and above it (Otsu 1979)."""
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
# Lung-to-tissue ratios are clipped to the range of the training scans, widened by this share.
RATIO_MARGIN = 0.1
# Range before anything was learned.
ANY_RATIO = (0.0, 0.9)


class Standardiser:
    """Maps the slices of a scan to the intensity standard; learned from the training split alone.

    Args:
        method: ``none``, ``landmarks`` or ``histogram``.
        window: HU window of the result; ``landmarks`` puts lung and soft tissue where they lie in it.
    Raises:
        UserError: unknown method.

    Example:
        >>> slices = [np.repeat([0.1, 0.5], 50).reshape(1, 100)]  # lung, soft tissue
        >>> Standardiser("landmarks", Window(-1000, 400)).apply_scan(slices)[0][0, [0, 99]].round(1).tolist()
        [0.10000000149011612, 0.699999988079071]
    """

    def __init__(self, method: str, window: Window) -> None:
        if method not in METHODS:
            raise UserError(f"standardise {method!r} is unknown; choose one of {', '.join(METHODS)}")
        self.method, self.window = method, window
        self.ratios: tuple[float, float] = ANY_RATIO
        self.quantiles: list[float] | None = None

    def fit(self, images_by_patient: Mapping[str, Sequence[np.ndarray]]) -> Standardiser:
        """Learns from the training scans: slices (H, W) in [0, 1], by scan."""
        scans = list(images_by_patient.values())
        if self.method == "landmarks" and scans:
            ratios = [_ratio([slice_peaks(image) for image in scan]) for scan in scans]
            self.ratios = (min(ratios) * (1.0 - RATIO_MARGIN), min(max(ratios) * (1.0 + RATIO_MARGIN), 0.9))
        if self.method == "histogram" and scans:
            self.quantiles = np.mean([_quantiles(scan) for scan in scans], axis=0).tolist()
        return self

    def apply_scan(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Maps the slices of one scan, (H, W) in [0, 1], to float32 in [0, 1]."""
        if self.method == "landmarks":
            levels = scan_landmarks(images, self.ratios)
            return [self._landmark_map(image, *level) for image, level in zip(images, levels, strict=True)]
        if self.method == "histogram" and self.quantiles is not None:
            source = _quantiles(images)
            return [_match(image, source, self.quantiles) for image in images]
        return [np.asarray(image, dtype=np.float32) for image in images]

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Maps one slice whose scan is unknown."""
        return self.apply_scan([image])[0]

    def state(self) -> dict[str, Any]:
        """Plain JSON from which `from_state` builds the same standardiser."""
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
    """Maps quantiles piecewise linearly; repeated source levels (clipped pixels) map to their mean."""
    levels, first = np.unique(np.round(source, 6), return_index=True)
    counts = np.diff(np.append(first, len(source)))
    means = np.add.reduceat(np.asarray(target), first) / counts
    return np.interp(image, levels, means).astype(np.float32)


CROP_LUNG_HU, CROP_TISSUE_HU = -840.0, 30.0
"""Median HU of the two levels in 240 crops of LIDC-IDRI with known HU."""
RING_PIXELS = 24
"""Width in pixels of the ring around a nodule in which the lung is measured."""
FEWEST_PIXELS = 64
"""Fewest pixels of a level."""
HISTOGRAM_SMOOTHING = 0.012
"""Smoothing of the histogram of soft tissue, as a share of the range of the picture."""
LEAST_MODE = 0.4
"""Least height of a mode of the histogram, as a share of the largest."""
LEAST_STEP = 0.1
"""Least distance of the levels of lung and tissue, as a share of the range."""


def levels_of(gray: NDArray[np.floating], nodule: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The gray values of lung and of soft tissue; None if the picture does not show both.

    Args:
        gray: (H, W), linear in HU. Its minimum is outside the scan, or air, and is ignored.
        nodule: (H, W); the lung is measured around it.
    """
    from skimage.filters import threshold_otsu  # slow to load, and of use to few

    values = np.asarray(gray, np.float64)
    span = float(values.max() - values.min())
    shown = values > values.min()
    if shown.sum() < 2 * FEWEST_PIXELS or span <= 0:
        return None
    smooth = gaussian_filter(values, 1.0)
    between = float(threshold_otsu(smooth[shown]))
    beside = binary_dilation(nodule, iterations=RING_PIXELS) & ~binary_dilation(nodule, iterations=3)
    lung = values[(beside if nodule.any() else shown) & shown & (smooth < between)]
    tissue = values[shown & (smooth > between)]
    if min(lung.size, tissue.size) < FEWEST_PIXELS:
        return None
    levels = float(np.median(lung)), _muscle_level(tissue, span)
    return levels if levels[1] - levels[0] >= LEAST_STEP * span else None


def hu_by_levels(
    gray: NDArray[np.floating], nodule: NDArray[np.bool_], otherwise: Window
) -> NDArray[np.int16]:
    """Converts a picture to HU (H, W) with lung at `CROP_LUNG_HU` and soft tissue at `CROP_TISSUE_HU`.

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
    levels = levels_of(values, nodule)
    if levels is None:
        low, step = float(values.min()), max(float(np.ptp(values)), 1.0)
        hu = otherwise.lower + (values - low) / step * otherwise.width
    else:
        hu = CROP_LUNG_HU + (values - levels[0]) * (CROP_TISSUE_HU - CROP_LUNG_HU) / (levels[1] - levels[0])
    return np.rint(hu.clip(-1024, 3071)).astype(np.int16)


def _muscle_level(values: NDArray[np.float64], span: float) -> float:
    """The gray of muscle and blood: the brightest mode of the histogram (fat is a darker one)."""
    from scipy.signal import find_peaks

    counts, edges = np.histogram(values, 256)
    width = HISTOGRAM_SMOOTHING * span / max(edges[1] - edges[0], 1e-9)
    smooth = gaussian_filter1d(np.pad(counts.astype(np.float64), 1), width, mode="constant")
    peaks, _ = find_peaks(smooth, height=LEAST_MODE * smooth.max())
    peak = min(int(peaks[-1]) if len(peaks) else int(smooth.argmax()), len(counts)) - 1
    return float(edges[max(peak, 0)] + edges[max(peak, 0) + 1]) / 2
