"""The panel of an evaluation: mask | generated | real | absolute difference, one sample a row."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from common.files import atomic_write

SMALLEST_TILE = 160  # pixels; smaller images are enlarged by whole factors
GAP = 6
HEADER = 26
CAPTION = 18
TITLES = ("mask", "generated", "real")  # and the difference, with its scale
TITLE_POINTS, NAME_POINTS = 14, 11
PAPER, INK = 255, 0


def save_panel(
    path: str | os.PathLike[str], masks: Tensor, generated: Tensor, real: Tensor, names: Sequence[str]
) -> None:
    """Writes the panel as PNG, atomically.

    Images are shown with the window's lower end black and its upper end white; the difference is scaled to
    its own maximum over the panel, which its title states in per cent of the window.

    Args:
        path: the PNG file.
        masks: (N, C, H, W), lesion where above 0.5.
        generated, real: (N, 1, H, W) in [-1, 1].
        names: N captions.
    """
    columns, largest = _columns(masks, generated, real)  # (N, 4, H, W) in [0, 1]
    factor = max(1, -(-SMALLEST_TILE // columns.shape[-1]))
    tiles = np.round(columns * 255).astype(np.uint8).repeat(factor, axis=2).repeat(factor, axis=3)
    sheet = _sheet(tiles, (*TITLES, f"|generated - real|, white = {largest:.0%}"), names)
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")


def _sheet(tiles: np.ndarray, titles: Sequence[str], names: Sequence[str]) -> Image.Image:
    """Tiles (rows, columns, H, W) uint8 on paper: titles above the columns, a name below each row."""
    rows, columns, height, width = tiles.shape
    size = (columns * (width + GAP) + GAP, HEADER + rows * (height + CAPTION) + GAP)
    sheet = Image.new("L", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    lefts = [GAP + column * (width + GAP) for column in range(columns)]
    for left, title in zip(lefts, titles, strict=True):
        _write(draw, (left, GAP), title, width, TITLE_POINTS)
    for row, (line, name) in enumerate(zip(tiles, names, strict=True)):
        top = HEADER + row * (height + CAPTION)
        for left, tile in zip(lefts, line, strict=True):
            sheet.paste(Image.fromarray(tile), (left, top))
        _write(draw, (GAP, top + height + 2), name, size[0] - 2 * GAP, NAME_POINTS)
    return sheet


def _columns(masks: Tensor, generated: Tensor, real: Tensor) -> tuple[np.ndarray, float]:
    """The four columns in [0, 1] as (N, 4, H, W) and the largest difference as a part of the window."""
    lesion = (masks.detach().cpu() > 0.5).any(1).float().numpy()  # (N, H, W)
    first, second = (
        ((images.detach().cpu().float()[:, 0].clamp(-1, 1) + 1) / 2).numpy() for images in (generated, real)
    )
    difference = np.abs(first - second)
    largest = float(difference.max()) if difference.size else 0.0
    return np.stack([lesion, first, second, difference / max(largest, 1e-6)], axis=1), largest


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, points: int) -> None:
    """Writes the text, or its end behind dots where it is wider than ``width`` pixels."""
    font = ImageFont.load_default(points)
    start = 0
    while start < len(text) and font.getlength(_from(text, start)) > width:
        start += 1
    draw.text(place, _from(text, start), INK, font)


def _from(text: str, start: int) -> str:
    return text if start == 0 else f"...{text[start:]}"
