"""Parts of slices in place of slices: square windows with a nodule and without, as large as all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

LEAST_LUNG = 0.3
"""Share of a window that lung fills, nodules included."""
MARGIN_MM = 2.0
"""A nodule lies in a window or outside with more than this much around it."""
MOST_EMPTY = 2
"""Windows without nodule of one slice."""

Window = tuple[slice, slice]


def window_pixels(side_mm: float, spacing: Sequence[float]) -> tuple[int, int]:
    """Rows and columns of a window.

    Args:
        spacing: mm along rows, columns.
    """
    rows, columns = (max(1, round(side_mm / size)) for size in spacing)
    return rows, columns


def draw_windows(
    lung: NDArray[np.uint8],
    nodules: NDArray[np.uint8],
    size: tuple[int, int],
    spacing: Sequence[float],
    random: np.random.Generator,
    with_nodule: bool,
) -> list[Window]:
    """One window that holds a nodule, anywhere in it, or up to `MOST_EMPTY` without any, at least half a side
    apart. None cuts a nodule; none at all where no place is fit.

    Args:
        lung, nodules: (H, W), 0 outside.
        size: rows and columns of a window.
        spacing: mm along rows, columns.
        random: chooses the places.
        with_nodule: which of the two.
    """
    fit, held = _places(lung, nodules, size, spacing)
    wanted = (held > 0) == with_nodule
    return _drawn(fit & wanted, size, random, 1 if with_nodule else MOST_EMPTY)


def _places(
    lung: NDArray[np.uint8], nodules: NDArray[np.uint8], size: tuple[int, int], spacing: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Of each upper left corner: whether a window there has enough lung and cuts no nodule, and how many
    pixels of nodules with their margin it holds."""
    near = nodules > 0
    if near.any():
        near = distance_transform_edt(~near, spacing) <= MARGIN_MM
    filled, held = _sums((lung > 0) | (nodules > 0), size), _sums(near, size)
    if not held.size or min(size) < 3:
        return np.zeros(held.shape, bool), held
    inner = _sums(near[1:-1, 1:-1], (size[0] - 2, size[1] - 2))
    return (filled >= LEAST_LUNG * size[0] * size[1]) & (held == inner), held


def _sums(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels of the mask (H, W) in each window: (H - rows + 1, W - columns + 1), empty where none fits."""
    total = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    total[1:, 1:] = mask.cumsum(0).cumsum(1)
    rows, columns = size
    if rows > mask.shape[0] or columns > mask.shape[1]:
        return np.zeros((0, 0), np.int64)
    below = total[rows:] - total[:-rows]  # (H - rows + 1, W + 1)
    return below[:, columns:] - below[:, :-columns]


def _drawn(
    fit: NDArray[np.bool_], size: tuple[int, int], random: np.random.Generator, most: int
) -> list[Window]:
    """Some of the fitting windows, each at least half a side from the others."""
    free, found = fit.copy(), list[Window]()
    while len(found) < most and free.any():
        corners = np.argwhere(free)
        top, first = (int(place) for place in corners[random.integers(len(corners))])
        found.append((slice(top, top + size[0]), slice(first, first + size[1])))
        rows, columns = np.abs(np.arange(fit.shape[0]) - top), np.abs(np.arange(fit.shape[1]) - first)
        free &= (rows[:, None] * 2 >= size[0]) | (columns[None] * 2 >= size[1])
    return found
