"""The trachea and the main bronchi, followed down from slice to slice until they open into the lungs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.lungs.morphology import IN_SLICE, Mask

TRACHEA_MM2 = 40.0, 900.0
"""Cross-section: from a child's to that of the carina."""
MIDDLE = 0.12
"""How far from the body's middle the trachea starts, as a share of the body's width."""
LOWEST_START = 0.5
"""The trachea is first seen in the upper half of the scan."""


def find_airway(inner: Mask, body: Mask, pixel_mm2: float) -> Mask:
    """Central airways among the air inside the body.

    Starts at the topmost slice with a small region of air near the body's middle; from there on down all
    small regions that overlap those of the slice above belong to it, until they open into the lungs.

    Args:
        inner: (Z, H, W) air inside the body, slices from the feet up.
        body: (Z, H, W) the body with all that is inside.
        pixel_mm2: area of a pixel.
    """
    labels, count = ndimage.label(inner, IN_SLICE)
    area = np.bincount(labels.ravel(), minlength=count + 1) * pixel_mm2
    airway = np.zeros(inner.shape, bool)
    small = area <= TRACHEA_MM2[1]
    small[0] = False
    above: NDArray[np.int64] | None = None
    for place in range(len(inner) - 1, -1, -1):
        here = labels[place]
        if above is None:
            if place < LOWEST_START * (len(inner) - 1):
                break
            found = _start(here, body[place], small & (area >= TRACHEA_MM2[0]))
        else:
            found = np.unique(here[airway[place + 1]])
            found = found[small[found]]
        airway[place] = np.isin(here, found)
        above = found if len(found) else above
    return airway


def _start(labels: NDArray[np.int32], body: Mask, fitting: Mask) -> NDArray[np.int64]:
    """The fitting regions near the body's middle column."""
    columns = np.flatnonzero(body.any(0))
    candidates = np.unique(labels)
    candidates = candidates[fitting[candidates]]
    if not len(columns) or not len(candidates):
        return np.zeros(0, np.int64)
    middle, width = columns.mean(), np.ptp(columns) + 1
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, candidates))[:, 1]
    return candidates[np.abs(centres - middle) < MIDDLE * width]
