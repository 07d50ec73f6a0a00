"""The trust report: its sections as data, its diagrams, one HTML page without scripts, and ``trust.json``."""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from common.errors import UserError
from common.files import atomic_write, write_json
from common.metrics.bootstrap import Value
from common.provenance import SHEET, png_text
from common.trust.gate import CLOSED, OPEN, UNDECIDED
from common.trust.image_sets import ImageSet
from common.visualization import sheet, tiled, unit_range

HIGHER, LOWER, AS_REAL = "higher", "lower", "as real"


@dataclass(frozen=True)
class Figure:
    """One number with everything needed to read it.

    Attributes:
        name: the measure, with its extractor or classifier: ``fid_gridvgg``.
        value: with interval and sample size.
        better: ``higher``, ``lower`` or ``as real``.
        baselines: by name (``real_real``, ``mean_image``, ...): good and bad values on this set.
        extractor: the network behind it; empty where there is none.
        seed: of its random draws.
        note: a sentence for the reader; empty for none.

    Example:
        >>> figure = Figure("dice", Value(0.8, 0.7, 0.9, 20), HIGHER, {"floor": Value(0.1, 0.1, 0.1, 20)})
        >>> figure.plain()["baselines"]["floor"]["mean"]
        0.1
    """

    name: str
    value: Value
    better: str
    baselines: Mapping[str, Value] = field(default_factory=dict)
    extractor: str = ""
    seed: int = 0
    note: str = ""

    def plain(self) -> dict[str, Any]:
        """Returns plain data for ``trust.json``."""
        baselines = {name: value.plain() for name, value in self.baselines.items()}
        facts = {"extractor": self.extractor, "seed": self.seed, "note": self.note}
        return {
            "name": self.name,
            **self.value.plain(),
            "better": self.better,
            "baselines": baselines,
            **facts,
        }


@dataclass(frozen=True)
class Line:
    """A curve: points, each with an interval if ``low`` and ``high`` are given."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """A diagram of curves (``kind`` line) or of distributions (``kind`` steps: y between the edges x)."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    caption: str = ""
    kind: str = "line"


@dataclass(frozen=True)
class Picture:
    """A sheet of images as PNG bytes with a caption."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        name: ``fidelity``, ``faithfulness``, ``utility`` or ``privacy``.
        title: heading on the page.
        statement: the answer in words.
        warnings: what a reader must know before trusting the figures.
        facts: further plain data for ``trust.json`` (thresholds, lists of files).
    """

    name: str
    title: str
    statement: str
    figures: Sequence[Figure] = ()
    plots: Sequence[Plot] = ()
    pictures: Sequence[Picture] = ()
    warnings: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Returns plain data for ``trust.json``: everything except the pictures."""
        return {
            "title": self.title,
            "statement": self.statement,
            "figures": [figure.plain() for figure in self.figures],
            "plots": [asdict(plot) for plot in self.plots],
            "warnings": list(self.warnings),
            "facts": dict(self.facts),
        }


@dataclass(frozen=True)
class Report:
    """The whole report.

    Attributes:
        bundle: name of the bundle, or of the folder of images.
        facts: what else is needed to get the same numbers: commit, seed, extractor, settings.
        sets: the sets that were compared, by name, see `set_facts`.
        sections: the answers.
        gate: ``verdict``, ``open``, ``reason``, ``threshold`` and the names of the ``flagged`` images, see
            `common.trust.gate.Gate`; None if privacy was left out.
        examples: a sheet of images of each set.
    """

    bundle: str
    facts: Mapping[str, str]
    sets: Mapping[str, Mapping[str, Any]]
    sections: Sequence[Section]
    gate: Mapping[str, Any] | None = None
    examples: Picture | None = None

    def plain(self) -> dict[str, Any]:
        """Returns plain data for ``trust.json``."""
        sections = {section.name: section.plain() for section in self.sections}
        return {
            "bundle": self.bundle,
            **self.facts,
            "sets": self.sets,
            "gate": self.gate,
            "sections": sections,
        }


def set_facts(images: ImageSet, source: str, synthetic: bool = False) -> dict[str, Any]:
    """Describes a set in one line of the page; patients are not counted for synthetic images.

    Example:
        >>> set_facts(ImageSet(torch.zeros(2, 1, 8, 8), ["a", "a"], ["1.png", "2.png"]), "DATA")
        {'images': 2, 'patients': 1, 'source': 'DATA', 'labelled': False}
    """
    patients = 0 if synthetic else len(set(images.patients))
    return {
        "images": len(images),
        "patients": patients,
        "source": source,
        "labelled": images.labels is not None,
    }


# Okabe & Ito 2008, the darker ones: at least 3 : 1 against white. Dashes and markers differ, too.
COLOURS = ("#0072b2", "#b34700", "#007a58", "#8a4a7a", "#4d4d4d", "#8a6d00")
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
SIZE = (6.4, 3.6)  # inches
FEW_POINTS = 30  # are drawn with markers
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
    """Draws a plot as an ``<svg>`` element; equal numbers give equal bytes.

    Example:
        >>> svg(Plot("title", "x", "y", [Line("a", [0, 1], [1, 2])])).startswith("<svg")
        True
    """
    with matplotlib.rc_context(STYLE):
        figure = matplotlib.figure.Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        for number, line in enumerate(plot.lines):
            style: dict[str, Any] = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": DASHES[number % len(DASHES)],
                "label": line.name,
            }
            if plot.kind == "steps":
                edges = [float(value) for value in line.x]
                if len(edges) == len(line.y):  # the last step is as wide as the one before
                    edges.append(2 * edges[-1] - edges[-2] if len(edges) > 1 else edges[-1] + 1)
                axes.stairs(line.y, edges, linewidth=1.8, **style | {"label": None})
                axes.plot([], [], **style)
                continue
            marker = MARKERS[number % len(MARKERS)] if len(line.x) <= FEW_POINTS else None
            axes.plot(line.x, line.y, marker=marker, **style)
            if line.low and line.high:
                axes.fill_between(line.x, line.low, line.high, color=style["color"], alpha=0.12, linewidth=0)
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
        if plot.lines:
            axes.legend(loc="best")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=NAMELESS, transparent=True)
    text = buffer.getvalue()
    head, rest = text[text.index("<svg") :].split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)  # as wide as the page allows
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    return f'{head} aria-hidden="true">{rest.strip()}'


def sheet_png(
    columns: Sequence[Tensor], titles: Sequence[str], names: Sequence[str], legend: Sequence[str] = ()
) -> bytes:
    """Encodes a sheet of images as PNG; equal images give equal bytes.

    Args:
        columns: (N, 1, H, W) or (N, 3, H, W) each, in [0, 1].
        titles: one per column.
        names: one per row.
        legend: names of the classes, if a column is in colours.
    """
    buffer = io.BytesIO()
    picture = sheet(tiled(columns), titles, names, legend)
    picture.save(buffer, format="PNG", optimize=True, pnginfo=png_text(SHEET))
    return buffer.getvalue()


def examples_picture(sets: Sequence[tuple[str, ImageSet]], count: int = 8) -> Picture:
    """Makes a sheet with one row per set: ``count`` images of each, or as many as the smallest set has."""
    shown = min([count, *(len(images) for _, images in sets)])
    rows = []
    for _, images in sets:
        indices = torch.linspace(0, len(images) - 1, shown).round().long().tolist()
        rows.append(unit_range(images.images[indices]))  # (shown, 1, S, S)
    columns = list(torch.stack(rows, dim=1))  # shown times (sets, 1, S, S)
    names = [name for name, _ in sets]
    listed = ", ".join(names)
    caption = f"From top to bottom {listed}: {shown} images of each set, spread evenly over its order."
    return Picture("Examples", caption, sheet_png(columns, [""] * shown, names))


PAGE = Path(__file__).parent / "page"
PAGE_SUFFIXES = (".html", ".htm")
JSON_NAME = "trust.json"
BETTER = {HIGHER: "higher is better", LOWER: "lower is better", AS_REAL: "best as real"}
SIGNS = {OPEN: "\u2713", CLOSED: "\u2715", UNDECIDED: "?"}
NAMES = {"heldout": "held-out real", "real_real": "real against real"}
NONE = "–"
LISTED = 10
"""Items of a list that the page shows."""


def page_path(path: str | os.PathLike[str]) -> Path:
    """Checks the path of the page.

    Raises:
        UserError: it is not the name of an HTML file.
    """
    target = Path(path)
    if target.suffix.lower() not in PAGE_SUFFIXES or target.is_dir():
        raise UserError(f"{target}: give the report's file with --output, e.g. report.html")
    return target


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Writes the page and ``trust.json`` next to it, each atomically, and returns the page's path.

    Raises:
        UserError: the name is not that of an HTML file, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> figure = Figure("fid", Value(1.5, 1.0, 2.0, 20), LOWER)
        >>> section = Section("fidelity", "Fidelity", "FID is 1.5.", [figure])
        >>> report = Report("dcgan_covid", {"seed": "0"}, {}, [section])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_report(f"{folder}/report.html", report)
        ...     "FID is 1.5." in path.read_text(), path.with_name("trust.json").is_file()
        (True, True)
    """
    target = page_path(path)
    text = page(report)
    write_json(target.with_name(JSON_NAME), _replace_non_finite(report.plain()))
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def page(report: Report) -> str:
    """Renders the HTML text; equal reports give equal texts."""
    loader = FileSystemLoader(PAGE)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode("ascii"),
        "baselines": lambda figures: list(dict.fromkeys(name for each in figures for name in each.baselines)),
        "first_sentence": first_sentence,
        "interval": interval,
        "number": number,
        "phrase": phrase,
        "svg": lambda plot: Markup(svg(plot)),  # matplotlib escapes the texts
        "words": words,
    }
    style = Markup((PAGE / "style.css").read_text(encoding="utf-8"))
    template = environment.get_template("index.html")
    return template.render(report=report, style=style, dash=NONE, better=BETTER, signs=SIGNS).strip() + "\n"


def first_sentence(text: str) -> str:
    """Cuts a text after the first full stop that a capital follows.

    Example:
        >>> first_sentence("FID is 2.6 here. It is low.")
        'FID is 2.6 here.'
    """
    return re.split(r"(?<=[.])\s+(?=[A-Z])", text, maxsplit=1)[0]


def number(value: float) -> str:
    """Formats a number with three significant digits; a dash for NaN and infinity.

    Example:
        >>> number(0.12345), number(12345.6), number(float("nan"))
        ('0.123', '12346', '–')
    """
    if not math.isfinite(value):
        return NONE
    if abs(value) >= 1000:
        return f"{value:.0f}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212") if abs(value) >= 1e-6 else "0"


def interval(value: Value) -> str:
    """Formats ``[low, high]``; a dash without an interval, nothing for exact or unknown values."""
    if value.low == value.high == value.mean or not math.isfinite(value.mean):
        return ""
    return f"[{number(value.low)}, {number(value.high)}]" if value.bounded else f"[{NONE}]"


def words(name: str) -> str:
    """Writes a key as words.

    Example:
        >>> words("real_real"), words("lost_structures")
        ('real against real', 'lost structures')
    """
    return NAMES.get(name, name.replace("heldout", "held-out").replace("_", " "))


def phrase(value: Any) -> str:
    """Writes plain data as a phrase; long lists are cut.

    Example:
        >>> phrase({"seeds": [0, 1], "whole_volumes": True})
        'seeds: (0, 1), whole volumes: yes'
    """

    def inner(item: Any) -> str:
        return f"({phrase(item)})" if isinstance(item, Mapping | list | tuple) else phrase(item)

    def join(items: Sequence[str], separator: str = ", ") -> str:
        more = f" and {len(items) - LISTED} more, in {JSON_NAME}" if len(items) > LISTED else ""
        return (separator.join(items[:LISTED]) or "none") + more

    if isinstance(value, Mapping):
        return join([f"{words(str(key))}: {inner(item)}" for key, item in value.items()])
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return join([phrase(item) for item in value], "; ")
        return join([inner(item) for item in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else NONE if value is None else str(value)


def _replace_non_finite(value: Any) -> Any:
    """Replaces NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, Mapping):
        return {str(key): _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
