"""Whether a generated image is what it is to be: a crop with a whole nodule, a slice with lungs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bundles.lung_two_stage.generation.images import INSIDE
from common.data.lungs import segment_lung_part, segment_lung_slice
from common.errors import UserError

FAINT = 13
"""Alpha below this, a twentieth, is what a tanh leaves of nothing."""
Alpha = NDArray[np.uint8]


def one_nodule(alpha: Alpha) -> Alpha:
    """(S, S) alpha without faint pixels and without pieces apart from the largest."""
    pieces, count = ndimage.label(alpha >= FAINT)
    if not count:
        return np.zeros_like(alpha)
    sizes = ndimage.sum_labels(alpha, pieces, np.arange(1, count + 1))
    return np.where(pieces == 1 + int(np.argmax(sizes)), alpha, 0).astype(np.uint8)


def areas(alpha: Alpha) -> NDArray[np.int64]:
    """Pixels of each mask: (N, S, S) -> (N,)."""
    return np.asarray((alpha >= INSIDE).sum((1, 2)), np.int64)


def are_whole(alpha: Alpha, real: Alpha) -> NDArray[np.bool_]:
    """Which nodules (N, S, S) are as large as real ones (M, S, S) are, and end within the crop: (N,)."""
    sizes, known = areas(alpha), areas(real)
    rim = np.ones(alpha.shape[1:], bool)
    rim[1:-1, 1:-1] = False
    cut = (alpha[:, rim] >= INSIDE).any(1)
    return np.asarray((sizes >= known.min()) & (sizes <= known.max()) & ~cut & (sizes > 0))


def diameters_mm(alpha: Alpha, spacing_mm: float) -> NDArray[np.float64]:
    """Of the discs with the masks' areas: (N, S, S) -> (N,)."""
    return np.asarray(2 * np.sqrt(areas(alpha) / np.pi) * spacing_mm)


def find_lungs(
    hu: NDArray[np.int16], spacing_mm: float, nominal_hu: bool, parts: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The lungs of generated slices (N, H, W), and in which of them (N,) there are any.

    Args:
        parts: they show parts of the chest.
    """
    if parts:
        lungs = np.stack([segment_lung_part(values, spacing_mm, nominal_hu) for values in hu])
        return lungs, np.asarray(lungs.any((1, 2)))
    lungs = np.zeros(hu.shape, np.uint8)
    found = np.zeros(len(hu), bool)
    for place, values in enumerate(hu):
        try:
            lungs[place] = segment_lung_slice(values, spacing_mm, nominal_hu)
        except UserError:
            continue
        found[place] = True
    return lungs, found


def have_lungs_as(lungs: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the slices' lungs (N, H, W) are as large as real ones (M, H, W) are: (N,)."""
    sizes, known = (lungs > 0).sum((1, 2)), (real > 0).sum((1, 2))
    return np.asarray((sizes >= known.min()) & (sizes <= known.max()) & (sizes > 0))
