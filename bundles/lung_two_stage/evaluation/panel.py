"""Composites before and after the enhancement, and real slices, side by side."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from common.files import atomic_write
from common.metrics.panel import unit_range
from common.metrics.sheet import sheet, tiled
from common.provenance import SHEET, png_text

EDGE = 0.35
"""How strongly a nodule's outline is drawn."""


def save_panel(
    path: str | os.PathLike[str],
    composites: Tensor,
    enhanced: Tensor,
    masks: Tensor,
    real: Tensor,
    count: int = 6,
) -> None:
    """A row for each of the first ``count`` composites: itself, enhanced, the change, its mask, a real slice.

    The change is scaled to its own maximum over the panel, which its title states in per cent of the window.

    Args:
        path: the PNG file, written atomically.
        composites, enhanced, real: (N, 1, H, W) in [-1, 1]; real slices belong to no row.
        masks: (N, 1, H, W), nodules above 0.
    """
    rows = min(count, len(composites))
    places = torch.arange(rows) % len(real)
    before, after = unit_range(composites[:rows]), unit_range(enhanced[:rows])
    change = (after - before).abs()
    largest = max(float(change.max()), 1e-6)
    outlined = (before * (1 - EDGE) + EDGE * (masks[:rows] > 0).float()).clamp(0, 1)
    columns = [before, after, change / largest, outlined, unit_range(real[places])]
    titles = ("composite", "enhanced", f"change, white = {largest:.0%}", "mask", "real (another patient)")
    with atomic_write(path) as temporary:
        picture = sheet(tiled(columns), titles, [f"composite {number}" for number in range(rows)])
        picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))
