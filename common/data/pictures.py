"""2-D picture files: 8-bit and 16-bit PNG, JPEG and TIFF, gray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from common.data.unreadable import explained
from common.errors import UserError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
EIGHT_BITS = (0.0, 255.0)
SIXTEEN_BITS = (0.0, 65535.0)
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_picture(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """The gray values (H, W) of a picture and its full range.

    RGB, RGBA and palette pictures are accepted where they are gray in truth (equal channels, opaque).

    Raises:
        UserError: unreadable, or in colour.
    """
    with explained(path), Image.open(path) as picture:
        picture.load()
        if picture.mode == "L":
            return np.asarray(picture), EIGHT_BITS
        if picture.mode in _SIXTEEN_BIT_MODES:
            return np.asarray(picture), SIXTEEN_BITS
        return _gray(picture, path), EIGHT_BITS


def read_label_picture(path: Path) -> np.ndarray:
    """The labels (H, W) of a mask picture. A palette picture's labels are its indices, not its colours.

    Raises:
        UserError: unreadable, or in colour.
    """
    with explained(path), Image.open(path) as picture:
        picture.load()
        if picture.mode in ("L", "P", *_SIXTEEN_BIT_MODES):
            return np.asarray(picture)
        if picture.mode == "1":
            return np.asarray(picture).astype(np.uint8)
        return _gray(picture, path)


def _gray(picture: Image.Image, path: Path) -> np.ndarray:
    """One channel of a picture whose colour channels are equal and whose alpha, if any, is opaque."""
    mode = picture.mode
    if mode not in ("1", "P", "LA", "PA", "RGB", "RGBA", "RGBX"):
        raise UserError(f"{path}: picture mode {mode} is not supported; save it as 8-bit or 16-bit gray PNG")
    channels = np.asarray(picture.convert("RGBA"))  # (H, W, 4)
    gray = (channels[..., 0] == channels[..., 1]).all() and (channels[..., 1] == channels[..., 2]).all()
    if not gray or (channels[..., 3] != 255).any():
        what = "transparent" if gray else "in colour"
        raise UserError(f"{path}: the picture is {what} (mode {mode}); save it as 8-bit or 16-bit gray PNG")
    return channels[..., 0]
