"""Methods beside each other: a line each, their models' mean and spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.metrics.bootstrap import Value
from common.metrics.report import aligned, number

Row = dict[str, list[Value]]
"""Of a method: by metric the values of its models."""


def table_of(rows: Mapping[str, Row]) -> str:
    """A line for each method; mean ± standard deviation over its models where it has several."""
    metrics = [name for name in next(iter(rows.values())) if _shown(name)]
    head = ["method", *metrics, "models"]
    lines = [
        [name, *(_cell(row[metric]) for metric in metrics), str(len(row[metrics[0]]))]
        for name, row in rows.items()
    ]
    return aligned([head, *lines])


def _shown(metric: str) -> bool:
    leading = metric.startswith(("is_", "fid_", "kid_", "excess_kid_"))
    return leading or metric in ("coverage", "copies_by_features")


def _cell(values: Sequence[Value]) -> str:
    means = np.array([value.mean for value in values])
    spread = f" ± {number(float(means.std(ddof=1)))}" if len(means) > 1 else ""
    return number(float(means.mean())) + spread


def gathered(measured: Sequence[Mapping[str, Value]]) -> Row:
    """The values of a method's models, by metric."""
    return {name: [each[name] for each in measured] for name in measured[0]}


def plain(row: Row) -> dict[str, Any]:
    """For JSON: a list of values with their intervals for each metric."""
    return {name: [value.plain() for value in values] for name, values in row.items()}
