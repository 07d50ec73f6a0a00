"""The report on disk: the page and ``trust.json`` beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import atomic_write, write_json
from common.trust.pages import page
from common.trust.report import Report

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
