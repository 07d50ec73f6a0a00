"""Flicker and columns: how a volume changes from slice to slice, too much or too little.

A generator that draws every slice on its own knows nothing of the slice before. What it draws inside a
structure may then change from slice to slice where a scanned body would not. The measure is the mean
distance of a voxel from the mean of its two neighbours, |v[n] - (v[n-1] + v[n+1]) / 2|, in HU: half of the
absolute second difference. It is 0 where the volume is constant or a straight ramp; it is 2 a where slices
alternate by plus and minus a; noise of deviation s that is independent from voxel to voxel gives 0.98 s.

Only voxels whose label is the same as both neighbours' count, so that the borders of structures, where
intensities must change, stay out of it. The same measure along the rows and columns of the slices makes the
number readable: ``ratio`` is 1 where a volume is as rough across its slices as within them. Thick slices
raise it in real scans too, so the real CT of the same labels is what to compare with, not 1, and below it is
as wrong as above it: a generator that draws the same texture into every slice makes straight columns along
the slice axis, which do not flicker at all. ``columns`` tells them: the correlation of the finest texture,
the second differences along rows and columns, between slices 10 mm apart. It is 1 for straight columns and
near 0 in scans, whose vessels and noise are elsewhere by then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import UserError

APART_MM = 10.0
"""Of the slices whose texture is compared."""
STRUCTURES, BACKGROUND = "structures", "background"


@dataclass(frozen=True)
class Flicker:
    """The measures over one structure, or several; NaN where no voxel counts.

    Attributes:
        across: HU, along the slice axis.
        within: HU, along the rows and columns of the slices.
        voxels: how many voxels ``across`` is the mean of.
        columns: correlation of fine texture between slices `APART_MM` apart; NaN for fewer slices.
    """

    across: float
    within: float
    voxels: int
    columns: float = math.nan

    @property
    def ratio(self) -> float:
        """``across`` for each HU ``within``; NaN where that is 0."""
        return self.across / self.within if self.within > 0 else math.nan

    def plain(self) -> dict[str, Any]:
        """For JSON, which knows no NaN."""
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
    """Flicker and columns of a volume, of all structures together, of the background and of each structure.

    Slice by slice: no copy of the volume is made.

    Args:
        volume: (N, H, W) values (HU), slices first.
        labels: (N, H, W) uint8 class indices: 0 background, k for ``classes[k - 1]``.
        classes: the structures' names.
        slice_mm: from one slice to the next.
    Returns:
        "structures" and "background", then the structures that have voxels to measure, by name.
    """
    count = len(classes) + 1
    across, within = np.zeros((2, count)), np.zeros((2, count))  # sums of distances, numbers of voxels
    for place in range(1, len(volume) - 1):
        across += _tally(list(volume[place - 1 : place + 2]), list(labels[place - 1 : place + 2]), count)
    for values, marks in zip(volume, labels, strict=True):
        for turned, turned_marks in ((values, marks), (values.T, marks.T)):
            within += _tally(_triple(turned), _triple(turned_marks), count)
    apart = max(1, round(APART_MM / slice_mm))
    products = np.zeros((3, count))
    for place in range(len(volume) - apart):
        pair = slice(place, place + apart + 1, apart)
        products += _products(np.asarray(volume[pair], np.float32), np.asarray(labels[pair]), count)
    parts: Mapping[str, slice] = {STRUCTURES: slice(1, None), BACKGROUND: slice(0, 1)}
    single = {name: slice(k, k + 1) for k, name in enumerate(classes, 1) if across[1, k]}
    return {
        name: _mean(across[:, part], within[:, part], products[:, part])
        for name, part in {**parts, **single}.items()
    }


def _triple(array: np.ndarray) -> Sequence[np.ndarray]:
    """(H, W) as its rows before, at and after each inner row: three (H - 2, W)."""
    return array[:-2], array[1:-1], array[2:]


def _tally(values: Sequence[np.ndarray], labels: Sequence[np.ndarray], count: int) -> np.ndarray:
    """For three neighbouring arrays, by label: sum of distances and number of voxels (2, count)."""
    before, here, after = (np.asarray(array, dtype=np.float32) for array in values)
    same = (labels[0] == labels[1]) & (labels[1] == labels[2])
    distance = np.abs(here - (before + after) / 2).ravel()
    label = np.where(same, labels[1], count).ravel()  # what differs goes into a bin of its own
    both = [np.bincount(label, distance, count + 1), np.bincount(label, minlength=count + 1)]
    return np.stack(both)[:, :count]


def _products(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Of two slices (2, h, w), by label: sums of the products of their second differences (3, count).

    One with the other, the first with itself, the other with itself. A voxel counts where it and its two
    neighbours are of one label in both slices.
    """
    sums = np.zeros((3, count))
    for turned, marks in ((values, labels), (values.swapaxes(1, 2), labels.swapaxes(1, 2))):
        before, here, after = (turned[:, :-2], turned[:, 1:-1], turned[:, 2:])
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
