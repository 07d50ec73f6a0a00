"""What the scanner adds: blur within the slice and correlated noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.phantoms.anatomy import Anatomy
from common.data.phantoms.grid import Array, Grid

LOWEST_HU, HIGHEST_HU = -1024, 3071
"""Range of a 12-bit scanner."""


def scan(
    random: np.random.Generator, ideal: Array, inside: Array, anatomy: Anatomy, grid: Grid
) -> NDArray[np.int16]:
    """The image a scanner makes of ``ideal`` HU.

    Args:
        random: draws the noise; it is white before the reconstruction filter, so it belongs to the voxels.
        ideal: densities in HU.
        inside: signed distance to the body's surface, mm; noise grows with depth.
        anatomy: gives the noise's standard deviation (HU) and the blur (mm).
        grid: gives the voxel size.
    """
    widths = [max(anatomy.blur / step, 0.35) for step in grid.spacing[:2]]
    blurred = ndimage.gaussian_filter(ideal, (*widths, 0.0))
    white = random.standard_normal(ideal.shape[::-1], dtype=np.float32).T
    grain = ndimage.gaussian_filter(white, (0.55, 0.55, 0.0))
    grain /= np.float32(grain.std() + 1e-6)
    strength = anatomy.noise_hu * np.clip(0.55 - inside / np.float32(110), 0.3, 1.3)
    return np.clip(np.rint(blurred + strength * grain), LOWEST_HU, HIGHEST_HU).astype(np.int16)
