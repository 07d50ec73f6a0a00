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
TITLES = ("mask", "generated", "real", "|generated - real|")
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
        names: a caption a row.
    """
    columns, largest = _columns(masks, generated, real)  # (N, 4, H, W) in [0, 1]
    rows, _, height, width = columns.shape
    factor = max(1, -(-SMALLEST_TILE // width))
    width, height = width * factor, height * factor
    sheet = Image.new("L", (4 * (width + GAP) + GAP, HEADER + rows * (height + CAPTION) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    titles = (*TITLES[:3], f"{TITLES[3]}, white = {largest:.0%}")
    for column, title in enumerate(titles):
        draw.text((GAP + column * (width + GAP), GAP), _fitting(title, width), INK, _font(14))
    for row, name in enumerate(names[:rows]):
        top = HEADER + row * (height + CAPTION)
        for column in range(4):
            tile = Image.fromarray(np.round(columns[row, column] * 255).astype(np.uint8))
            left = GAP + column * (width + GAP)
            sheet.paste(tile.resize((width, height), Image.Resampling.NEAREST), (left, top))
        draw.text((GAP, top + height + 2), _fitting(name, 4 * width, 11), INK, _font(11))
    with atomic_write(path) as temporary:
        sheet.save(temporary, format="PNG")


def _columns(masks: Tensor, generated: Tensor, real: Tensor) -> tuple[np.ndarray, float]:
    """The four columns in [0, 1] as (N, 4, H, W) and the largest difference as a part of the window."""
    lesion = (masks.detach().cpu() > 0.5).any(1).float().numpy()  # (N, H, W)
    first, second = (
        ((images.detach().cpu().float()[:, 0].clamp(-1, 1) + 1) / 2).numpy() for images in (generated, real)
    )
    difference = np.abs(first - second)
    largest = float(difference.max()) if difference.size else 0.0
    return np.stack([lesion, first, second, difference / max(largest, 1e-6)], axis=1), largest


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fitting(text: str, width: int, size: int = 14) -> str:
    """The text, or its end behind dots where it is wider than ``width`` pixels."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(f"...{kept}") > width:
        kept = kept[1:]
    return f"...{kept}"
