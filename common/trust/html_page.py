"""The report as one HTML page without scripts or network, and ``trust.json`` beside it."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.errors import UserError
from common.files import atomic_write, write_json
from common.metrics.bootstrap import Value
from common.trust.figures import svg
from common.trust.gate import CLOSED, OPEN, UNDECIDED
from common.trust.results import AS_REAL, HIGHER, LOWER, Figure, Report

PAGE = Path(__file__).parent / "page"
BETTER = {HIGHER: "higher is better", LOWER: "lower is better", AS_REAL: "best as real"}
LISTED = 10
"""Items of a list that the page shows."""
NAMES = {"heldout": "held-out real", "real_real": "real against real"}
NONE = "–"
SIGNS = {OPEN: "\u2713", CLOSED: "\u2715", UNDECIDED: "?"}
JSON_NAME = "trust.json"
PAGE_SUFFIXES = (".html", ".htm")


def page(report: Report) -> str:
    """The whole HTML text; the same report gives the same text."""
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "base64": lambda png: base64.b64encode(png).decode("ascii"),
        "baselines": baseline_names,
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


def page_path(path: str | os.PathLike[str]) -> Path:
    """Checks where the page is to be written.

    Raises:
        UserError: not the name of an HTML file.
    """
    target = Path(path)
    if target.suffix.lower() not in PAGE_SUFFIXES or target.is_dir():
        raise UserError(f"{target}: give the report's file with --output, e.g. report.html")
    return target


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Writes the page and ``trust.json`` beside it, each atomically.

    Returns:
        The page's path.
    Raises:
        UserError: the name is of no HTML file, or the folder cannot be written.
    """
    target = page_path(path)
    text = page(report)
    write_json(target.with_name(JSON_NAME), _replace_non_finite(report.plain()))
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target


def first_sentence(text: str) -> str:
    """Up to the first full stop that a capital follows.

    Example:
        >>> first_sentence("FID is 2.6 here. It is low.")
        'FID is 2.6 here.'
    """
    return re.split(r"(?<=[.])\s+(?=[A-Z])", text, maxsplit=1)[0]


def number(value: float) -> str:
    """Three significant digits, or a dash for none.

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
    """``[low, high]``; a dash instead where there is none, empty for exact or unknown values."""
    if value.low == value.high == value.mean or not math.isfinite(value.mean):
        return ""
    return f"[{number(value.low)}, {number(value.high)}]" if value.bounded else f"[{NONE}]"


def baseline_names(figures: Sequence[Figure]) -> list[str]:
    """The names of all figures' baselines, in order of appearance."""
    return list(dict.fromkeys(name for figure in figures for name in figure.baselines))


def words(name: str) -> str:
    """A key as words.

    Example:
        >>> words("real_real"), words("lost_structures")
        ('real against real', 'lost structures')
    """
    return NAMES.get(name, name.replace("heldout", "held-out").replace("_", " "))


def phrase(value: Any) -> str:
    """Plain data as a phrase; the first items of long lists.

    Example:
        >>> phrase({"seeds": [0, 1], "whole_volumes": True})
        'seeds: (0, 1), whole volumes: yes'
    """
    if isinstance(value, Mapping):
        return _join([f"{words(str(key))}: {_inner(item)}" for key, item in value.items()])
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return _join([phrase(item) for item in value], "; ")
        return _join([_inner(item) for item in value])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else NONE if value is None else str(value)


def _inner(value: Any) -> str:
    return f"({phrase(value)})" if isinstance(value, Mapping | list | tuple) else phrase(value)


def _join(items: Sequence[str], separator: str = ", ") -> str:
    more = f" and {len(items) - LISTED} more, in {JSON_NAME}" if len(items) > LISTED else ""
    return (separator.join(items[:LISTED]) or "none") + more


def _replace_non_finite(value: Any) -> Any:
    """None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
