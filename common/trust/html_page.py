"""The report as one HTML text: template, style, tables, diagrams and pictures; no script, no network."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from common.errors import UserError
from common.files import atomic_write, write_json
from common.metrics.bootstrap import Value
from common.trust.figures import svg
from common.trust.gate import CLOSED, OPEN, UNDECIDED
from common.trust.report import GateState, Report, SetFacts
from common.trust.results import AS_REAL, HIGHER, LOWER, Figure, Picture, Plot, Section

PAGE = Path(__file__).parent / "page"
BETTER = {HIGHER: "higher is better", LOWER: "lower is better", AS_REAL: "best as real"}
LISTED = 10
NAMES = {"heldout": "held-out real", "real_real": "real against real"}
NONE = "–"
SIGNS = {OPEN: "\u2713", CLOSED: "\u2715", UNDECIDED: "?"}


def page(report: Report) -> str:
    """The whole HTML text; the same report gives the same text."""
    return Template(_source("index.html")).substitute(
        title=escape(f"Trust report: {report.bundle}"),
        heading=escape(report.bundle),
        style=_source("style.css"),
        verdict=verdict(report),
        sets=_sets(report.sets),
        facts=_definitions(report.facts),
        examples=_pictures([report.examples]) if report.examples else "",
        sections="\n".join(section_html(section) for section in report.sections),
    )


def verdict(report: Report) -> str:
    """The gate, and a line for each section."""
    lines = "".join(
        f'<dt><a href="#{escape(section.name)}">{escape(section.name.capitalize())}</a></dt>'
        f"<dd>{escape(first_sentence(section.statement))}</dd>"
        for section in report.sections
    )
    return f'<div class="verdict">{_gate(report.gate)}<dl class="lines">{lines}</dl></div>'


def section_html(section: Section) -> str:
    """One question with its answer, figures, diagrams and pictures."""
    parts = [
        f"<h2>{escape(section.title)}</h2>",
        f'<p class="statement">{escape(section.statement)}</p>',
        _warnings(section.warnings),
        table(section.figures) if section.figures else "",
        _plots(section.plots),
        _pictures(section.pictures),
        f'<h3>Details</h3><dl class="facts">{_definitions(section.facts)}</dl>' if section.facts else "",
    ]
    body = "\n".join(part for part in parts if part)
    return f'<section id="{escape(section.name)}">\n{body}\n</section>'


def table(figures: Sequence[Figure]) -> str:
    """All figures, one a line: value, interval, baselines beside it, n, seed, network."""
    baselines = list(dict.fromkeys(name for figure in figures for name in figure.baselines))
    names = ["measure", "value [95 % interval]", *(_words(name) for name in baselines)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (*names, "n", "patients"))
    head += "".join(f'<th scope="col" class="text">{name}</th>' for name in ("better", "network", "seed"))
    rows = "\n".join(_row(figure, baselines) for figure in figures)
    caption = "<caption>Every figure, with its baselines beside it.</caption>"
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody>"
    return f'<div class="wide"><table>{caption}{body}</table></div>'


def first_sentence(text: str) -> str:
    """Up to the first full stop that a capital follows."""
    return re.split(r"(?<=[.])\s+(?=[A-Z])", text, maxsplit=1)[0]


def number(value: float) -> str:
    """Three significant digits, or a dash for none."""
    if not math.isfinite(value):
        return NONE
    if abs(value) >= 1000:
        return f"{value:.0f}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212") if abs(value) >= 1e-6 else "0"


def _row(figure: Figure, baselines: Sequence[str]) -> str:
    note = f'<span class="note">{escape(figure.note)}</span>' if figure.note else ""
    beside = "".join(f"<td>{_value(figure.baselines.get(name))}</td>" for name in baselines)
    last = (BETTER.get(figure.better, figure.better), figure.extractor or NONE, str(figure.seed))
    return (
        f'<tr><th scope="row">{escape(figure.name)}{note}</th>'
        f"<td>{_value(figure.value, strong=True)}</td>{beside}<td>{figure.value.n}</td>"
        f"<td>{figure.value.patients or NONE}</td>"
        + "".join(f'<td class="text">{escape(text)}</td>' for text in last)
        + "</tr>"
    )


def _value(value: Value | None, strong: bool = False) -> str:
    if value is None:
        return NONE
    shown = f"<strong>{number(value.mean)}</strong>" if strong else number(value.mean)
    if value.low == value.high == value.mean or not math.isfinite(value.mean):
        return shown
    if not value.bounded:
        return f'{shown} <span class="interval">[{NONE}]</span>'
    return f'{shown} <span class="interval">[{number(value.low)}, {number(value.high)}]</span>'


def _gate(gate: GateState | None) -> str:
    if gate is None:
        return '<p class="gate"><b>Release gate not asked for</b><span>Privacy was left out.</span></p>'
    state = gate.verdict
    said = f"{SIGNS[state]} Release gate {state}"
    return f'<p class="gate {state}"><b>{said}</b><span>{escape(gate.reason)}</span></p>'


def _sets(sets: Sequence[SetFacts]) -> str:
    head = "".join(
        f'<th scope="col" class="text">{name}</th>'
        for name in ("set", "images", "patients", "labels", "folder")
    )
    rows = "".join(_set_row(each) for each in sets)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _set_row(facts: SetFacts) -> str:
    labels = "yes" if facts.labelled else "no"
    cells = (str(facts.images), str(facts.patients or NONE), labels, facts.source)
    texts = "".join(f'<td class="text">{escape(cell)}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(_words(facts.name))}</th>{texts}</tr>'


def _warnings(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def _plots(plots: Sequence[Plot]) -> str:
    return _figures("plots", ((plot.title, plot.caption, svg(plot)) for plot in plots))


def _pictures(pictures: Sequence[Picture]) -> str:
    return _figures(
        "pictures",
        ((picture.title, picture.caption, _image(picture)) for picture in pictures),
    )


def _figures(kind: str, items: Iterable[tuple[str, str, str]]) -> str:
    made = "\n".join(
        f"<figure><figcaption><b>{escape(title)}</b>{escape(caption)}</figcaption>{content}</figure>"
        for title, caption, content in items
    )
    return f'<div class="{kind}">\n{made}\n</div>' if made else ""


def _image(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    return f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'


def _definitions(facts: Mapping[str, Any]) -> str:
    return "\n".join(
        f"<dt>{escape(_words(name))}</dt><dd>{escape(_plain(value))}</dd>" for name, value in facts.items()
    )


def _plain(value: Any) -> str:
    """Plain data as a phrase; of long lists the beginning."""
    if isinstance(value, Mapping):
        return _listed([f"{_words(str(key))}: {_inner(item)}" for key, item in value.items()])
    if isinstance(value, list | tuple):
        records = any(isinstance(item, Mapping) for item in value)
        return _listed(
            [_plain(item) if records else _inner(item) for item in value], "; " if records else ", "
        )
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else NONE if value is None else str(value)


def _inner(value: Any) -> str:
    return f"({_plain(value)})" if isinstance(value, Mapping | list | tuple) else _plain(value)


def _listed(items: Sequence[str], joint: str = ", ") -> str:
    more = f" and {len(items) - LISTED} more, in trust.json" if len(items) > LISTED else ""
    return (joint.join(items[:LISTED]) or "none") + more


def _words(name: str) -> str:
    return NAMES.get(name, name.replace("heldout", "held-out").replace("_", " "))


def _source(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


JSON_NAME = "trust.json"
PAGE_SUFFIXES = (".html", ".htm")


def page_path(path: str | os.PathLike[str]) -> Path:
    """Where the page is to go.

    Raises:
        UserError: not the name of an HTML file.
    """
    target = Path(path)
    if target.suffix.lower() not in PAGE_SUFFIXES or target.is_dir():
        raise UserError(f"{target}: give the report's file with --output, e.g. report.html")
    return target


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Writes the page, which needs no network and no script, and ``trust.json`` beside it; each whole or not.

    Returns:
        The page's path.
    Raises:
        UserError: the name is of no HTML file, or the place cannot be written.
    """
    target = page_path(path)
    text = page(report)
    write_json(target.with_name(JSON_NAME), _finite(report.plain()))
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def _finite(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: None stands for them."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
