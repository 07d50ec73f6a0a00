"""The report's diagrams as SVG text: the same bytes for the same numbers, readable without colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from common.trust.findings import Line, Plot

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
    """The plot as an ``<svg>`` element, without XML declaration, date or anything of the machine."""
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
    """y over the edges x; of as many x as y the last edge is as far on as the one before."""
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
    """The element alone, as wide as the page lets it be."""
    start = text.index("<svg")
    head, rest = text[start:].split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    return f'{head} aria-hidden="true">{rest.strip()}'
