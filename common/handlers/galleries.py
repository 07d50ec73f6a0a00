"""Pictures of an evaluation of unconditional generators: many samples side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from common.files import atomic_write
from common.handlers.images import image_grid
from common.handlers.samples import in_rows
from common.metrics.panel import unit_range
from common.metrics.sheet import sheet
from common.provenance import SHEET, png_text

SMALLEST = 96  # pixels; smaller images are enlarged by whole factors


def save_galleries(
    path: str | os.PathLike[str], galleries: Mapping[str, Tensor], columns: int = 6, note: str = ""
) -> None:
    """Writes grids of images beside each other, as paper C's figures 4, 5 and 8.

    Args:
        path: the PNG file, written atomically.
        galleries: images (N, 1, H, W) in [-1, 1] by title; shorter ones end in white.
        columns: images in a row.
        note: a line below.
    """
    most = max(map(len, galleries.values()))
    grids = [_grid(images, columns, -(-most // columns)) for images in galleries.values()]
    factor = max(1, -(-SMALLEST // next(iter(galleries.values())).shape[-1]))
    tiles = np.stack(grids)[None, ..., None].repeat(factor, 2).repeat(factor, 3)  # (1, galleries, H', W', 1)
    with atomic_write(path) as temporary:
        sheet(tiles, list(galleries), [note]).save(temporary, format="PNG", pnginfo=png_text(SHEET))


def _grid(images: Tensor, columns: int, rows: int) -> np.ndarray:
    """(N, 1, H, W) -> (H', W') uint8 of ``rows`` rows."""
    whole = [row for row in in_rows(unit_range(images), columns) if len(row)]
    blank = whole[0].new_ones(whole[0].shape)
    return image_grid([*whole, *[blank] * (rows - len(whole))])
