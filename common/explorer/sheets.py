"""Many small pictures as one JPEG."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from common.errors import UserError
from common.provenance import SHEET

LONGEST_SIDE = 16_384  # pixels; browsers on phones decode no longer ones
QUALITY = 88


def square_sheet(pictures: np.ndarray) -> tuple[np.ndarray, int]:
    """(N, T, T) -> a sheet (R * T, C * T), filled row by row, about square, and its columns C."""
    count, side = pictures.shape[:2]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, side, side), np.uint8)
    grid[:count] = pictures
    return grid_sheet(grid.reshape(rows, columns, side, side)), columns


def grid_sheet(pictures: np.ndarray) -> np.ndarray:
    """(R, C, T, T) -> (R * T, C * T)."""
    rows, columns, side, _ = pictures.shape
    return pictures.transpose(0, 2, 1, 3).reshape(rows * side, columns * side)  # (R, T, C, T) -> (R T, C T)


def jpeg(sheet: np.ndarray) -> bytes:
    """A grey picture (H, W) uint8 as JPEG.

    Raises:
        UserError: it is wider or higher than browsers decode.
    """
    if max(sheet.shape) > LONGEST_SIDE:
        size = " x ".join(map(str, sheet.shape))
        raise UserError(f"explorer: pictures of {size} pixels together; take fewer or smaller ones")
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="JPEG", quality=QUALITY, optimize=True, comment=SHEET)
    return buffer.getvalue()
