"""Sheets of images for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from torch import Tensor

from common.metrics.colours import class_picture
from common.metrics.panel import unit_range
from common.metrics.sheet import sheet, tiled
from common.provenance import SHEET, png_text
from common.trust.components import Parts
from common.trust.findings import Picture
from common.trust.sets import ImageSet


def sheet_png(
    columns: Sequence[Tensor], titles: Sequence[str], names: Sequence[str], legend: Sequence[str] = ()
) -> bytes:
    """A sheet as PNG bytes, the same for the same images.

    Args:
        columns: (N, 1, H, W) or (N, 3, H, W) each, in [0, 1].
        titles: one a column.
        names: one a row.
        legend: names of the classes, where a column is in colours.
    """
    buffer = io.BytesIO()
    sheet(tiled(columns), titles, names, legend).save(
        buffer, format="PNG", optimize=True, pnginfo=png_text(SHEET)
    )
    return buffer.getvalue()


def mistakes_picture(
    synthetic: ImageSet, found: Tensor, parts: Parts, structures: Sequence[str], shown: int
) -> list[Picture]:
    """The images that lose or invent most, their conditions and what was found; nothing where none does.

    Args:
        found: class indices (N, 1, S, S).
        shown: images at most.
    """
    faults = parts.lost + parts.invented
    rows = [place for place, _ in parts.listed(faults, structures)][:shown]
    if not rows or synthetic.labels is None:
        return []
    names = [_caption(synthetic.names[row], parts, row) for row in rows]
    columns = [
        class_picture(synthetic.labels[rows]),
        unit_range(synthetic.images[rows]),
        class_picture(found[rows]),
    ]
    png = sheet_png(columns, ("condition", "synthetic", "found in it"), names, structures)
    total = int((faults.sum(1) > 0).sum())
    caption = (
        f"The {len(rows)} with most of {total} images that lose or invent a structure. Black is background."
    )
    return [Picture("Images that lose or invent structures", caption, png)]


def examples_picture(sets: Sequence[tuple[str, ImageSet]], count: int = 8) -> Picture:
    """A row a set: ``count`` images of each, spread evenly over it (fewer where a set has fewer)."""
    shown = min([count, *(len(each) for _, each in sets)])
    rows = []
    for _, each in sets:
        places = torch.linspace(0, len(each) - 1, shown).round().long().tolist()
        rows.append(unit_range(each.images[places]))  # (shown, 1, S, S)
    columns = list(torch.stack(rows, dim=1))  # shown times (sets, 1, S, S)
    png = sheet_png(columns, [""] * shown, [name for name, _ in sets])
    rows_said = ", ".join(name for name, _ in sets)
    caption = f"From top to bottom {rows_said}: {shown} images of each set, spread evenly over its order."
    return Picture("Examples", caption, png)


def _caption(name: str, parts: Parts, row: int) -> str:
    return f"{name}: {int(parts.lost[row].sum())} lost, {int(parts.invented[row].sum())} invented"
