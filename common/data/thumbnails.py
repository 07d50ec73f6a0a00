"""Small pictures of slices, for finding slices that show the same."""

from __future__ import annotations

import numpy as np

from common.data.resizing import resize_image

THUMBNAIL = 32


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(H, W) in any range -> float32 (T * T,) of zero mean and unit norm: a dot product is a correlation."""
    small = resize_image(image, THUMBNAIL, THUMBNAIL).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def without_padding(image: np.ndarray) -> np.ndarray:
    """Without rows and columns at the edges of (H, W) that have the first pixel's value throughout.

    Bars that padding to a square has left make the thumbnails of different slices alike.
    """
    shown = image != image[0, 0]
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image
