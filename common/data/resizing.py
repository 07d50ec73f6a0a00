"""Slices to the network's square, and back."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of a float (H, W) slice; shrinking averages over the covered area (no aliasing)."""
    return _resized(np.asarray(image, dtype=np.float32), height, width, Image.Resampling.BILINEAR)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize of a uint8 (H, W) mask: no new labels appear."""
    return _resized(np.asarray(mask, dtype=np.uint8), height, width, Image.Resampling.NEAREST)


def _resized(array: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    if array.shape == (height, width):
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), how))
