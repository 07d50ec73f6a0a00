"""Which lung is which, where they touch as well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.lungs.morphology import Mask, components

RIGHT, LEFT = 1, 2
EROSIONS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0)
"""Tried in turn until the lungs come apart."""
COARSE_MM = 2.0
"""Pixels that are finer are taken together for that."""
LEAST_SHARE = 0.12
"""Of both lungs together, for the smaller one."""
APART = 0.25
"""How far apart the two middles are at least, as a share of the width of both lungs."""
BOTH = 0.5
"""One region that is wider than this share of the slice is both lungs."""


def split_sides(lungs: Mask, middle: float, spacing: Sequence[float]) -> NDArray[np.uint8]:
    """Divides (Z, H, W) lungs into right (1) and left (2).

    The lungs are eroded until two large regions lie side by side; each voxel then goes to the nearer one.
    Where there is no such pair, the body's middle column divides what is wide enough for two lungs; anything
    narrower is the one lung on whose side it lies.

    Args:
        middle: column of the body's middle.
        spacing: mm along slices, rows, columns.
    """
    step = max(1, round(COARSE_MM / max(spacing[1], spacing[2])))
    size = (spacing[0], spacing[1] * step, spacing[2] * step)
    cores = _cores(lungs[:, ::step, ::step], size)
    if cores is None:
        return np.where(lungs, _by_columns(lungs.sum((0, 1)), middle), 0).astype(np.uint8)
    side = _spread(cores, size).repeat(step, 1).repeat(step, 2)  # (Z, H, W) and up to a step more
    return np.where(lungs, side[:, : lungs.shape[1], : lungs.shape[2]], 0).astype(np.uint8)


def _by_columns(counts: NDArray[np.int64], middle: float) -> NDArray[np.uint8]:
    """(W) side of each column, from the lung's voxels in each."""
    places = np.arange(len(counts))
    found = np.flatnonzero(counts)
    if np.ptp(found) > BOTH * len(counts):
        return np.where(places > middle, LEFT, RIGHT).astype(np.uint8)
    return np.full(len(counts), LEFT if np.average(places, weights=counts) > middle else RIGHT, np.uint8)


def _spread(cores: NDArray[np.uint8], spacing: Sequence[float]) -> NDArray[np.uint8]:
    """The nearer core's value for each voxel."""
    nearest = ndimage.distance_transform_edt(cores == 0, spacing, return_distances=False, return_indices=True)
    return np.asarray(cores[tuple(nearest)])


def _cores(lungs: Mask, spacing: Sequence[float]) -> NDArray[np.uint8] | None:
    """One region for each lung: `RIGHT`, `LEFT`, 0 elsewhere."""
    columns = np.flatnonzero(lungs.any((0, 1)))
    depth = None
    for radius in EROSIONS_MM:
        if radius and depth is None:  # seldom needed
            framed = np.pad(lungs, [(1, 1), (0, 0), (0, 0)], "edge")  # the scan's ends are no pleura
            depth = ndimage.distance_transform_edt(framed, spacing)[1:-1]
        labels, sizes = components(lungs if depth is None else depth > radius)
        pair = _pair(labels, sizes, LEAST_SHARE * lungs.sum(), APART * (np.ptp(columns) + 1))
        if pair is not None:
            return np.where(labels == pair[0], RIGHT, np.where(labels == pair[1], LEFT, 0)).astype(np.uint8)
    return None


def _pair(
    labels: NDArray[np.int32], sizes: NDArray[np.int64], least: float, apart: float
) -> tuple[int, int] | None:
    """The largest region and the next largest that lies beside it, the right lung's first."""
    large = [int(label) for label in np.argsort(-sizes) if sizes[label] >= least][:4]
    centres = [
        np.average(np.arange(labels.shape[2]), weights=(labels == label).sum((0, 1))) for label in large
    ]
    for label, centre in list(zip(large, centres, strict=True))[1:]:
        if abs(centre - centres[0]) >= apart:
            return (large[0], label) if centres[0] < centre else (label, large[0])
    return None
