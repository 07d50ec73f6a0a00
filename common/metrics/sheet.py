"""Tiles on paper: a picture of rows and columns with titles, captions and a legend of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.metrics.colours import colour

SMALLEST_TILE = 160  # pixels; smaller images are enlarged by whole factors
GAP = 6
HEADER = 26
CAPTION = 18
LEGEND = 24
TITLE_POINTS, NAME_POINTS = 14, 11
PAPER, INK = 255, 0


def tiled(columns: Sequence[Tensor]) -> np.ndarray:
    """Columns of pictures as tiles of a readable size.

    Args:
        columns: (N, 1, H, W) or (N, 3, H, W) each, in [0, 1] (clipped).
    Returns:
        (N, columns, H', W', channels) uint8 with 3 channels where any column has them, else 1.
    """
    channels = max(column.shape[1] for column in columns)
    tiles = torch.stack([column.float().expand(-1, channels, -1, -1) for column in columns], dim=1)
    pixels = tiles.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    factor = max(1, -(-SMALLEST_TILE // pixels.shape[3]))
    return pixels.repeat(factor, axis=2).repeat(factor, axis=3)


def sheet(
    tiles: np.ndarray, titles: Sequence[str], names: Sequence[str], legend: Sequence[str] = ()
) -> Image.Image:
    """The picture: titles above the columns, a name below each row, the classes' colours at the bottom.

    Args:
        tiles: (rows, columns, H, W, channels) uint8, see `tiled`.
        titles: one a column.
        names: one a row.
        legend: names of the classes, in order of their indices; needs coloured tiles.
    """
    rows, columns, height, width, channels = tiles.shape
    size = (columns * (width + GAP) + GAP, HEADER + rows * (height + CAPTION) + GAP + LEGEND * bool(legend))
    picture = Image.new("RGB" if channels == 3 else "L", size, (PAPER,) * 3 if channels == 3 else PAPER)
    draw = ImageDraw.Draw(picture)
    lefts = [GAP + column * (width + GAP) for column in range(columns)]
    for left, title in zip(lefts, titles, strict=True):
        _write(draw, (left, GAP), title, width, TITLE_POINTS)
    for row, (line, name) in enumerate(zip(tiles, names, strict=True)):
        top = HEADER + row * (height + CAPTION)
        for left, tile in zip(lefts, line, strict=True):
            picture.paste(Image.fromarray(tile.squeeze(-1) if channels == 1 else tile), (left, top))
        _write(draw, (GAP, top + height + 2), name, size[0] - 2 * GAP, NAME_POINTS)
    if legend:
        _legend(draw, size[1] - LEGEND, legend)
    return picture


def _legend(draw: ImageDraw.ImageDraw, top: int, names: Sequence[str]) -> None:
    font = ImageFont.load_default(NAME_POINTS)
    left, side = GAP, LEGEND - 3 * GAP
    for index, name in enumerate(names, start=1):
        draw.rectangle((left, top, left + 2 * side, top + 2 * side), colour(index), outline=(INK,) * 3)
        draw.text((left + 2 * side + GAP, top), name, (INK,) * 3, font)
        left += 2 * side + 3 * GAP + round(font.getlength(name))


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, points: int) -> None:
    """Writes the text, or its end behind dots where it is wider than ``width`` pixels."""
    font = ImageFont.load_default(points)
    start = 0
    while start < len(text) and font.getlength(_from(text, start)) > width:
        start += 1
    draw.text(place, _from(text, start), "black", font)


def _from(text: str, start: int) -> str:
    return text if start == 0 else f"...{text[start:]}"
