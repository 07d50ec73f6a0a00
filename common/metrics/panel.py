"""The panels of an evaluation: mask | generated | real | absolute difference, one sample a row."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from common.files import atomic_write
from common.metrics.colours import class_picture, label_picture
from common.metrics.labels import is_condition_image
from common.metrics.rows import structure_rows
from common.metrics.sheet import sheet, tiled
from common.provenance import SHEET, png_text

WHOLE = "all structures"


def save_panel(
    path: str | os.PathLike[str],
    masks: Tensor,
    generated: Tensor,
    real: Tensor,
    names: Sequence[str],
    structures: Sequence[str] = (),
) -> None:
    """Writes the panel as PNG, atomically.

    Images are shown with the window's lower end black and its upper end white; the difference is scaled to
    its own maximum over the panel, which its title states in per cent of the window.

    Args:
        path: the PNG file.
        masks: (N, C, H, W): masks, class indices (shown in colours) or condition images.
        generated, real: (N, 1, H, W) in [-1, 1].
        names: N captions.
        structures: names of the classes, for the legend.
    """
    title = "condition" if is_condition_image(masks) else "mask"
    _save(path, title, label_picture(masks), generated, real, names, structures)


def save_structure_panel(
    path: str | os.PathLike[str],
    labels: Tensor,
    generated: Tensor,
    real: Tensor,
    names: Sequence[str],
    structures: Sequence[str],
) -> None:
    """A row for each structure and for all together, as paper B's figure 4; slices as `structure_rows` says.

    In the mask the other structures are dimmed. Nothing is written where no slice has any structure.

    Args:
        path: the PNG file.
        labels: class indices (N, 1, H, W) of a whole test set.
        generated, real: (N, 1, H, W) in [-1, 1].
        names: N names of the slices.
        structures: names of the classes.
    """
    chosen = structure_rows(labels, len(structures))
    if not chosen:
        return
    pictures = [class_picture(labels[row : row + 1].cpu(), index or None) for index, row in chosen]
    rows = [row for _, row in chosen]
    captions = [f"{structures[index - 1] if index else WHOLE}: {names[row]}" for index, row in chosen]
    _save(path, "mask", torch.cat(pictures), generated[rows], real[rows], captions, structures)


def _save(
    path: str | os.PathLike[str],
    title: str,
    conditions: Tensor,
    generated: Tensor,
    real: Tensor,
    names: Sequence[str],
    structures: Sequence[str],
) -> None:
    """Conditions are pictures in [0, 1]; in colours they get a legend."""
    first, second = (unit_range(images) for images in (generated, real))
    difference = (first - second).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    titles = (title, "generated", "real", f"|generated - real|, white = {largest:.0%}")
    tiles = tiled([conditions, first, second, difference / max(largest, 1e-6)])
    legend = structures if conditions.shape[1] == 3 else ()
    with atomic_write(path) as temporary:
        sheet(tiles, titles, names, legend).save(temporary, format="PNG", pnginfo=png_text(SHEET))


def unit_range(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] (clipped) as grey levels (N, 1, H, W) in [0, 1] on the CPU."""
    return images.detach().cpu().float()[:, :1].clamp(-1, 1).add(1).div(2)
