"""Consistency of generated volumes from slice to slice: flicker (too much change) and columns (too little).

A generator that draws every slice independently may change the inside of a structure from slice to slice
where a scanned body would not. Flicker is the mean distance of a voxel from the mean of its two neighbours,
|v[n] - (v[n-1] + v[n+1]) / 2|, in HU: half of the absolute second difference. It is 0 for a constant volume
or a linear ramp, 2 a for slices that alternate by plus and minus a, and 0.98 s for white noise of deviation
s.

Only voxels with the same label as both neighbours count, which leaves out the borders of structures. The same
measure along the rows and columns of the slices gives the scale: ``ratio`` is 1 if a volume is as rough
across its slices as within them. Thick slices raise it in real scans too, so compare with the real CT of the
same labels, not with 1. Less than real is as wrong as more: a generator that draws the same texture into
every slice makes straight columns along the slice axis, which do not flicker at all. ``columns`` detects
them: the correlation of the finest texture, the second differences along rows and columns, between slices 10
mm apart. It is 1 for straight columns and near 0 in scans.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import UserError

APART_MM = 10.0
"""Distance of the slices whose texture is compared."""
STRUCTURES, BACKGROUND = "structures", "background"


@dataclass(frozen=True)
class Flicker:
    """The measures over one structure or several; NaN if no voxel counts.

    Attributes:
        across: HU, along the slice axis.
        within: HU, along the rows and columns of the slices.
        voxels: number of voxels that ``across`` is the mean of.
        columns: correlation of fine texture between slices `APART_MM` apart; NaN for fewer slices.
    """

    across: float
    within: float
    voxels: int
    columns: float = math.nan

    @property
    def ratio(self) -> float:
        """``across`` divided by ``within``; NaN if that is 0."""
        return self.across / self.within if self.within > 0 else math.nan

    def as_json(self) -> dict[str, Any]:
        """Returns rounded numbers for JSON, None in place of NaN."""
        numbers = {"across": self.across, "within": self.within, "ratio": self.ratio, "columns": self.columns}
        finite = {name: round(value, 4) if math.isfinite(value) else None for name, value in numbers.items()}
        return {**finite, "voxels": self.voxels}

    def __str__(self) -> str:
        if not math.isfinite(self.across):
            return "none to measure"
        columns = f", columns {self.columns:.2f}" if math.isfinite(self.columns) else ""
        return f"{self.across:.1f} across slices, {self.within:.1f} within (ratio {self.ratio:.2f}){columns}"


def flicker(
    volume: np.ndarray, labels: np.ndarray, classes: Sequence[str], slice_mm: float = 1.0
) -> dict[str, Flicker]:
    """Measures flicker and columns of a volume: of all structures, of the background and of each structure.

    Works slice by slice, without a copy of the volume.

    Args:
        volume: (N, H, W) values (HU), slices first.
        labels: (N, H, W) uint8 class indices: 0 background, k for ``classes[k - 1]``.
        classes: the structures' names.
        slice_mm: distance of neighbouring slices.
    Returns:
        "structures" and "background", then the structures that have voxels to measure, by name.

    Example:
        >>> volume = np.zeros((5, 4, 4)); volume[::2] = 10.0
        >>> flicker(volume, np.ones((5, 4, 4), np.uint8), ["LV"])["LV"].across
        10.0
    """
    count = len(classes) + 1
    across, within = np.zeros((2, count)), np.zeros((2, count))  # sums of distances, numbers of voxels
    for n in range(1, len(volume) - 1):
        across += _tally(list(volume[n - 1 : n + 2]), list(labels[n - 1 : n + 2]), count)
    for values, marks in zip(volume, labels, strict=True):
        for rows, row_marks in ((values, marks), (values.T, marks.T)):
            within += _tally(_triple(rows), _triple(row_marks), count)
    apart = max(1, round(APART_MM / slice_mm))
    products = np.zeros((3, count))
    for n in range(len(volume) - apart):
        pair = slice(n, n + apart + 1, apart)
        products += _products(np.asarray(volume[pair], np.float32), np.asarray(labels[pair]), count)
    parts: Mapping[str, slice] = {STRUCTURES: slice(1, None), BACKGROUND: slice(0, 1)}
    single = {name: slice(k, k + 1) for k, name in enumerate(classes, 1) if across[1, k]}
    return {
        name: _mean(across[:, part], within[:, part], products[:, part])
        for name, part in {**parts, **single}.items()
    }


def _triple(array: np.ndarray) -> Sequence[np.ndarray]:
    """Returns the rows before, at and after each inner row of (H, W): three arrays (H - 2, W)."""
    return array[:-2], array[1:-1], array[2:]


def _tally(values: Sequence[np.ndarray], labels: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Sums the distances and counts the voxels of three neighbouring arrays, by label: (2, count)."""
    before, here, after = (np.asarray(array, dtype=np.float32) for array in values)
    same = (labels[0] == labels[1]) & (labels[1] == labels[2])
    distance = np.abs(here - (before + after) / 2).ravel()
    label = np.where(same, labels[1], count).ravel()  # voxels at borders go into an extra bin
    both = [np.bincount(label, distance, count + 1), np.bincount(label, minlength=count + 1)]
    return np.stack(both)[:, :count]


def _products(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Sums the products of the second differences of two slices (2, h, w), by label: (3, count).

    The products are one with the other, the first with itself, the other with itself. A voxel counts if it
    and its two neighbours have one label in both slices.
    """
    sums = np.zeros((3, count))
    for rows, marks in ((values, labels), (values.swapaxes(1, 2), labels.swapaxes(1, 2))):
        before, here, after = (rows[:, :-2], rows[:, 1:-1], rows[:, 2:])
        one, other = here - (before + after) / 2
        middle = marks[0, 1:-1]
        same = np.logical_and.reduce([part == middle for both in marks for part in _triple(both)])
        label = np.where(same, middle, count).ravel()
        for total, product in zip(sums, (one * other, one * one, other * other), strict=True):
            total += np.bincount(label, product.ravel(), count + 1)[:count]
    return sums


def _mean(across: np.ndarray, within: np.ndarray, products: np.ndarray) -> Flicker:
    sums, voxels = (float(total) for total in across.sum(axis=1))
    shared, one, other = products.sum(axis=1)
    sums_within, voxels_within = (float(total) for total in within.sum(axis=1))
    return Flicker(
        across=sums / voxels if voxels else math.nan,
        within=sums_within / voxels_within if voxels_within else math.nan,
        voxels=int(voxels),
        columns=float(shared / math.sqrt(one * other)) if one * other > 0 else math.nan,
    )


REACH = 3
"""Standard deviations: weights beyond are less than 1 %."""


def check_sigma(sigma: float) -> float:
    """Returns ``sigma`` as a float.

    Raises:
        UserError: it is not a number, or negative.
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 <= sigma < math.inf:
        raise UserError(f"smooth_slices {sigma!r}: give the width in slices, such as 1.0, or 0 for none")
    return float(sigma)


def smooth_across(volume: np.ndarray, labels: np.ndarray, sigma: float) -> np.ndarray:
    """Smooths a volume along the slice axis by a Gaussian, within each label.

    A voxel becomes the weighted mean of the voxels above and below it that have its own label, so structures
    do not mix and their borders stay. At borders and at the ends of the volume the remaining weights are
    scaled to a sum of 1.

    Args:
        volume: (N, H, W), slices first.
        labels: (N, H, W), any integers.
        sigma: standard deviation in slices; 0 returns ``volume`` itself.
    Returns:
        (N, H, W) in the volume's dtype, integers rounded.
    Raises:
        UserError: ``sigma`` is negative or not a number.
    """
    if check_sigma(sigma) == 0:
        return volume
    smooth = np.empty_like(volume)
    for index in range(len(volume)):
        mean = _weighted_mean(volume, labels, index, sigma)
        smooth[index] = np.rint(mean) if volume.dtype.kind in "iu" else mean
    return smooth


def _weighted_mean(volume: np.ndarray, labels: np.ndarray, index: int, sigma: float) -> np.ndarray:
    """Returns slice ``index`` (H, W), smoothed, float32."""
    reach = math.ceil(REACH * sigma)
    total, weights = np.zeros((2, *volume.shape[1:]), dtype=np.float32)
    for other in range(max(0, index - reach), min(len(volume), index + reach + 1)):
        weight = np.float32(math.exp(-0.5 * ((other - index) / sigma) ** 2))
        same = np.where(labels[other] == labels[index], weight, np.float32(0))  # (H, W)
        total += same * volume[other]
        weights += same
    return total / weights
