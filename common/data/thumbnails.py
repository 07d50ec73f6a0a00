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
