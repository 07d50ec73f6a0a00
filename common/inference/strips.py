"""Series of images as one picture with captions, and as an animated file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from common.files import atomic_write
from common.metrics.panel import unit_range
from common.metrics.sheet import PAPER, sheet, tiled
from common.provenance import UNKNOWN, Provenance

COLUMNS = 10
FRAME_MS, HELD_MS = 120, 700
"""How long a frame is shown; the first and the last are held longer."""


def save_strip(
    path: str | os.PathLike[str],
    images: Tensor,
    captions: Sequence[str],
    columns: int = COLUMNS,
    provenance: Provenance = UNKNOWN,
) -> None:
    """Writes images (N, 1, H, W) in [-1, 1] as one PNG, a caption above each, in even rows.

    Args:
        columns: most images in a row.
        provenance: what made the images, said in the file.
    """
    columns = -(-len(images) // -(-len(images) // columns))
    rows = [
        _row(images[start : start + columns], captions[start : start + columns])
        for start in range(0, len(images), columns)
    ]
    height = rows[0].height
    picture = Image.new("L", (rows[0].width, height * len(rows)), PAPER)
    for number, row in enumerate(rows):
        picture.paste(row, (0, number * height))
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=provenance.png())


def save_animation(path: str | os.PathLike[str], images: Tensor, provenance: Provenance = UNKNOWN) -> None:
    """Writes images (N, 1, H, W) in [-1, 1] as an endless GIF of N frames in 256 grey levels.

    Args:
        provenance: what made the images, said in the file's comment.
    """
    frames = [Image.fromarray(pixels) for pixels in grey_levels(images)]
    times = [FRAME_MS] * len(frames)
    times[0] = times[-1] = HELD_MS
    with atomic_write(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=times,
            loop=0,
            comment=provenance.text,
        )


def grey_levels(images: Tensor) -> np.ndarray:
    """Images (N, 1, H, W) in [-1, 1] in 8 bits: (N, H, W) uint8."""
    levels: np.ndarray = unit_range(images)[:, 0].mul(255).round().byte().numpy()
    return levels


def _row(images: Tensor, captions: Sequence[str]) -> Image.Image:
    tiles = tiled([unit_range(image[None]) for image in images])  # (1, N, H', W', 1)
    return sheet(tiles, captions, [""])
