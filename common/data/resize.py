"""Resizing of slices to the networks' squares, and back.

MONAI's `Resize` is not used: it shrinks without averaging where it interpolates (`bilinear`) and blurs where
it averages (`area`), and what trained models see must not change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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
    """Resizes a float (H, W) slice in [0, 1] to a square (size, size), with 0 where the slice does not reach.

    Args:
        fit: ``pad`` takes the whole slice, ``crop`` its middle, both keep the aspect; ``stretch`` does not.
    Raises:
        UserError: ``fit`` is none of these.

    Example:
        >>> fit_square(np.ones((2, 4)), 4)[:, 0]
        array([0., 1., 1., 0.], dtype=float32)
    """
    return _centred(resize_image(image, *_fitted(image.shape, size, fit)), (size, size), np.float32)


def fit_mask(mask: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """Resizes a uint8 (H, W) mask as `fit_square` does its image, to the nearest pixel: (size, size)."""
    return _centred(resize_mask(mask, *_fitted(mask.shape, size, fit)), (size, size), np.uint8)


def unfit_square(square: np.ndarray, height: int, width: int, fit: str = "pad") -> np.ndarray:
    """Inverse of `fit_square`: float (S, S) to float32 (height, width), with 0 where it was cropped."""
    fitted = _fitted((height, width), len(square), fit)
    return resize_image(_centred(square, fitted, np.float32), height, width)


def check_fit_name(fit: str) -> str:
    """Returns ``fit`` itself if it is one of `FITS`.

    Raises:
        UserError: it is not.
    """
    if fit not in FITS:
        raise UserError(f"fit {fit!r} is unknown; choose one of {', '.join(FITS)}")
    return fit


def _fitted(shape: tuple[int, ...], size: int, fit: str) -> tuple[int, int]:
    """The (h, w) that a slice of ``shape`` is resized to before it is centred in the square."""
    if check_fit_name(fit) == "stretch":
        return size, size
    side = max(shape) if fit == "pad" else min(shape)
    height, width = (max(1, round(extent * size / side)) for extent in shape)
    return height, width


def _centred(array: np.ndarray, shape: tuple[int, int], dtype: npt.DTypeLike) -> np.ndarray:
    """Pads the array (h, w) with zeros, or crops it, to ``shape`` about its middle."""
    if array.shape == shape:
        return array
    inside = array[_middle(array.shape[0], shape[0]), _middle(array.shape[1], shape[1])]
    result = np.zeros(shape, dtype)
    result[_middle(shape[0], inside.shape[0]), _middle(shape[1], inside.shape[1])] = inside
    return result


def _middle(extent: int, size: int) -> slice:
    """The middle ``size`` of ``extent`` indices, or all if there are fewer."""
    start = max(0, (extent - size) // 2)
    return slice(start, start + min(size, extent))


def _resized(array: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    if array.shape == (height, width):
        return array
    return np.array(Image.fromarray(array).resize((width, height), how))
