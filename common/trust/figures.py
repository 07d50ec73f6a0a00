"""The report's diagrams as SVG text (same numbers, same bytes; readable without colours) and its sheets."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from common.metrics.segmentation import ComponentCounts
from common.provenance import SHEET, png_text
from common.trust.image_sets import ImageSet
from common.trust.results import Line, Picture, Plot
from common.visualization import class_picture, sheet, tiled, unit_range

# Okabe & Ito 2008, the darker ones: 3 : 1 against white at least.
COLOURS = ("#0072b2", "#b34700", "#007a58", "#8a4a7a", "#4d4d4d", "#8a6d00")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
SIZE = (6.4, 3.6)  # inches
STYLE: Any = {  # matplotlib's stubs want literal keys
    "svg.hashsalt": "trust report",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d8dee8",
    "legend.frameon": False,
}
NAMELESS = {"Date": None, "Creator": None, "Format": None, "Type": None}


def svg(plot: Plot) -> str:
    """Draws a plot as an ``<svg>`` element without XML declaration, date or anything of the machine."""
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=SIZE, layout="constrained")
        axes = canvas.add_subplot()
        for number, line in enumerate(plot.lines):
            (_steps if plot.kind == "steps" else _curve)(axes, line, number)
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
        if plot.lines:
            axes.legend(loc="best")
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata=NAMELESS, transparent=True)
    return _inline(buffer.getvalue())


def _curve(axes: Axes, line: Line, number: int) -> None:
    colour, few = COLOURS[number % len(COLOURS)], len(line.x) <= 30
    marker = MARKERS[number % len(MARKERS)] if few else None
    axes.plot(line.x, line.y, color=colour, linestyle=_dash(number), marker=marker, label=line.name)
    if line.low and line.high:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.12, linewidth=0)


def _steps(axes: Axes, line: Line, number: int) -> None:
    """Steps y between the edges x; a missing last edge is as far on as the one before."""
    edges = _edges(line.x, len(line.y))
    axes.stairs(line.y, edges, color=COLOURS[number % len(COLOURS)], linestyle=_dash(number), linewidth=1.8)
    axes.plot([], [], color=COLOURS[number % len(COLOURS)], linestyle=_dash(number), label=line.name)


def _edges(x: Sequence[float], bars: int) -> list[float]:
    edges = [float(value) for value in x]
    if len(edges) == bars:
        edges.append(2 * edges[-1] - edges[-2] if bars > 1 else edges[-1] + 1)
    return edges


def _dash(number: int) -> str | tuple:
    return DASHES[number % len(DASHES)]


def _inline(text: str) -> str:
    """The element alone, as wide as the page allows."""
    start = text.index("<svg")
    head, rest = text[start:].split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    return f'{head} aria-hidden="true">{rest.strip()}'


def sheet_png(
    columns: Sequence[Tensor], titles: Sequence[str], names: Sequence[str], legend: Sequence[str] = ()
) -> bytes:
    """A sheet of images as PNG bytes; the same images give the same bytes.

    Args:
        columns: (N, 1, H, W) or (N, 3, H, W) each, in [0, 1].
        titles: one per column.
        names: one per row.
        legend: names of the classes, where a column is in colours.
    """
    buffer = io.BytesIO()
    sheet(tiled(columns), titles, names, legend).save(
        buffer, format="PNG", optimize=True, pnginfo=png_text(SHEET)
    )
    return buffer.getvalue()


def mistakes_picture(
    synthetic: ImageSet, found: Tensor, parts: ComponentCounts, structures: Sequence[str], shown: int
) -> list[Picture]:
    """The images that lose or invent most structures, with conditions and segmentations; [] for none.

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
    """One row per set: ``count`` images of each, evenly spread (fewer where a set has fewer)."""
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


def _caption(name: str, parts: ComponentCounts, row: int) -> str:
    return f"{name}: {int(parts.lost[row].sum())} lost, {int(parts.invented[row].sum())} invented"
