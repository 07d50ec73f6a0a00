"""What a search found: a table, and an overlay with the best values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from common.files import atomic_write
from common.tuning.space import Value

Row = tuple[int, str, float | None, Mapping[str, Value]]  # number, state, score, values


def table(rows: list[Row], best: int | None = None) -> str:
    """Trials as lines of text, the best marked with ``*``."""
    names = list(rows[0][3]) if rows else []
    lines = [["trial", "score", *names, ""]]
    for number, state, score, values in rows:
        shown = "-" if score is None else f"{score:.4g}"
        mark = "* best" if number == best else state
        lines.append([str(number), shown, *(str(values[name]) for name in names), mark])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: list[str], widths: list[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
    return "  ".join([*numbers, cells[-1]]).rstrip()


def write_overlay(path: Path, values: Mapping[str, Value], notes: list[str]) -> None:
    """Writes an overlay on the training config, atomically; ``notes`` become comment lines above.

    Floats get a point and a signed exponent (``1.0e-05``): YAML 1.1 takes ``1e-5`` for text.
    """
    comments = "".join(f"# {note}\n" for note in notes)
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    with atomic_write(path) as temporary:
        temporary.write_text(comments + text, encoding="utf-8")
