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
