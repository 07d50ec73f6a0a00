"""Mask operations in mm, on stacks of axial slices (Z, H, W)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spacing = Sequence[float]
IN_SLICE = np.array([np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))], bool)


def components(mask: Mask, structure: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.int32], NDArray]:
    """Connected regions: labels from 1 up, and the number of voxels of each label (that of 0 is 0)."""
    labels, count = ndimage.label(mask, structure)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels, sizes


def touching_rim(mask: Mask) -> Mask:
    """The regions of each slice that touch its rim."""
    labels, _ = ndimage.label(mask, IN_SLICE)
    rim = np.concatenate([labels[:, [0, -1]].ravel(), labels[:, :, [0, -1]].ravel()])
    found = np.zeros(labels.max() + 1, bool)
    found[rim] = True
    found[0] = False
    return np.asarray(found[labels])


def close_slice(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Closing of a (H, W) mask with a disc: what is farther than ``radius_mm`` from all outer discs."""
    pad = [int(np.ceil(radius_mm / size)) + 1 for size in spacing]
    padded = np.pad(mask, [(pad[0], pad[0]), (pad[1], pad[1])])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, sampling=spacing) > radius_mm
    return np.asarray(closed[pad[0] : -pad[0], pad[1] : -pad[1]] | mask)


def fill_slice(mask: Mask, largest_cm2: float, spacing: Spacing) -> Mask:
    """Fills the holes of a (H, W) mask that are not larger than ``largest_cm2``."""
    labels, sizes = components(ndimage.binary_fill_holes(mask) & ~mask)
    small = sizes * spacing[0] * spacing[1] / 100 <= largest_cm2
    small[0] = False
    return np.asarray(mask | small[labels])
