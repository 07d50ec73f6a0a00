"""A slice on its way into a set of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from common.data.intensity import to_unit
from common.data.reading import Pixels
from common.data.resizing import fit_mask, fit_square
from common.data.standardise import Standardiser
from common.trust.settings import ReadingSettings


@dataclass(frozen=True)
class Loaded:
    """One slice, ready but for its look.

    Attributes:
        unit: float32 (S, S) in [0, 1].
        label: uint8 (S, S); None without.
        name: see `common.trust.sets.ImageSet`.
        patient: or person, where several scans are known to be of one.
        scan: the patient's id in the files' names.
        is_hu: whether the values are calibrated HU.
    """

    unit: np.ndarray
    label: np.ndarray | None
    name: str
    patient: str
    scan: str
    is_hu: bool


def prepared(pixels: Pixels, settings: ReadingSettings) -> np.ndarray:
    """Gray values (H, W) of any kind as the square (S, S) in [0, 1] that the network sees."""
    lower, upper = pixels.source_range if settings.source_range is None else settings.source_range
    unit = to_unit(pixels.values, settings.window, pixels.is_hu, (float(lower), float(upper)))
    return fit_square(unit, settings.image_size, settings.fit)


def prepared_label(label: np.ndarray, settings: ReadingSettings) -> np.ndarray:
    """A label (H, W) as uint8 (S, S), placed as its image; no new values."""
    return fit_mask(label, settings.image_size, settings.fit)


def standardised(slices: Sequence[Loaded], standardiser: Standardiser | None) -> list[Loaded]:
    """The slices in the look that the model learned, scan by scan; HU are left alone."""
    result = list(slices)
    scans: dict[str, list[int]] = defaultdict(list)
    for place, loaded in enumerate(slices):
        if not loaded.is_hu:
            scans[loaded.scan].append(place)
    if standardiser is None:
        return result
    for places in scans.values():
        looks = standardiser.apply_scan([slices[place].unit for place in places])
        for place, look in zip(places, looks, strict=True):
            result[place] = replace(slices[place], unit=look)
    return result
