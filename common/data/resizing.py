"""Slices to the network's square, and back."""

from __future__ import annotations

import numpy as np
from PIL import Image

from common.errors import UserError

FITS = ("pad", "crop", "stretch")


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of a float (H, W) slice; shrinking averages over the covered area (no aliasing)."""
    return _resized(np.asarray(image, dtype=np.float32), height, width, Image.Resampling.BILINEAR)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize of a uint8 (H, W) mask: no new labels appear."""
    return _resized(np.asarray(mask, dtype=np.uint8), height, width, Image.Resampling.NEAREST)


def fit_square(image: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """A float (H, W) slice in [0, 1] as a square (size, size), black where nothing is.

    Args:
        fit: ``pad`` takes the whole slice, ``crop`` its middle, both keep the aspect; ``stretch`` does not.
    Raises:
        UserError: no such way.
    """
    if fit not in FITS:
        raise UserError(f"fit {fit!r} is unknown; choose one of {', '.join(FITS)}")
    if fit == "stretch" or image.shape[0] == image.shape[1]:
        return resize_image(image, size, size)
    side = max(image.shape) if fit == "pad" else min(image.shape)
    height, width = (max(1, round(extent * size / side)) for extent in image.shape)
    resized = resize_image(image, height, width)
    inside = resized[_middle(height, size), _middle(width, size)]
    square = np.zeros((size, size), np.float32)
    square[_middle(size, inside.shape[0]), _middle(size, inside.shape[1])] = inside
    return square


def _middle(extent: int, size: int) -> slice:
    """The middle ``size`` of ``extent`` places, all of fewer."""
    start = max(0, (extent - size) // 2)
    return slice(start, start + min(size, extent))


def _resized(array: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    if array.shape == (height, width):
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), how))
