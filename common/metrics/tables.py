"""Formats the results of an evaluation as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.metrics.bootstrap import few_patients

BASELINES = ("nearest_mask", "mean_image")  # the baselines in the table of structures
ARROWS = {"higher": "higher is better", "lower": "lower is better", "as real": "best as real-real"}


def metrics_table(result: Mapping[str, Any]) -> str:
    """Formats the result of `common.metrics.evaluate.evaluate_with_baselines`, one metric per line.

    ``*`` marks the leading metrics.

    Example:
        >>> value = {"mean": 1.5, "interval": [1.0, 2.0], "n": 20, "patients": 12}
        >>> metrics = {"fid_x": {**value, "better": "lower", "baselines": {"mean_image": value}}}
        >>> print(metrics_table({"metrics": metrics, "leading": ["fid_x"]}))
        metric   model [95 % interval]  mean-image   n  patients
        -------------------------------------------------------------------------
        fid_x *   1.500 [1.000, 2.000]       1.500  20        12  lower is better
    """
    metrics: Mapping[str, Any] = result["metrics"]
    baselines = list(next(iter(metrics.values()))["baselines"]) if metrics else []
    titles = [name.replace("_", "-") for name in baselines]
    head = ["metric", "model [95 % interval]", *titles, "n", "patients", ""]
    rows = [head, *(_row(name, metrics[name], baselines, result["leading"]) for name in metrics)]
    return "\n".join([format_table(rows), *patients_warning(metrics)])


def patients_warning(metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Warns in one line if metrics (plain values by name) rest on few patients."""
    known = [metric["patients"] for metric in metrics.values() if metric.get("patients")]
    warning = few_patients(min(known, default=None))
    return [] if warning is None else [f"warning: {warning}"]


def structures_table(structures: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the structures of `common.metrics.structure_metrics.structures_with_baselines`, one per line.

    Each cell is the model's value with those of the baselines in brackets.
    """
    first = next(iter(structures.values()), {})
    names = [name for name in first if name != "contrast_error"]
    shown = [name for name in BASELINES if any(name in first[metric]["baselines"] for metric in names)]
    rows = [["structure", *(f"{name} {first[name]['better']}" for name in names), "n"]]
    for structure, metrics in structures.items():
        cells = [_with_baselines(metrics[name], shown) for name in names]
        rows.append([structure, *cells, str(metrics["mse"]["n"])])
    note = ", ".join(name.replace("_", "-") for name in shown)
    return f"{format_table(rows)}\nmodel ({note}); n slices; higher or lower is better"


def format_number(value: float | None) -> str:
    """Formats a number with up to four significant digits, ``-`` for None.

    Example:
        >>> format_number(0.12345), format_number(123.45), format_number(None)
        ('0.123', '123.5', '-')
    """
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def format_interval(metric: Mapping[str, Any]) -> str:
    """Formats a plain value, with a dash for a missing interval.

    Example:
        >>> format_interval({"mean": 0.5, "interval": [0.4, 0.6]})
        '0.500 [0.400, 0.600]'
    """
    if metric["interval"] is None:
        return f"{format_number(metric['mean'])} [-]"
    low, high = metric["interval"]
    return f"{format_number(metric['mean'])} [{format_number(low)}, {format_number(high)}]"


def _row(name: str, metric: Mapping[str, Any], baselines: Sequence[str], leading: Sequence[str]) -> list[str]:
    return [
        name + (" *" if name in leading else ""),
        format_interval(metric),
        *(format_number(metric["baselines"][baseline]["mean"]) for baseline in baselines),
        str(metric["n"]),
        "-" if metric.get("patients") is None else str(metric["patients"]),
        ARROWS[metric["better"]],
    ]


def _with_baselines(metric: Mapping[str, Any], baselines: Sequence[str]) -> str:
    values = ", ".join(format_number(metric["baselines"][baseline]["mean"]) for baseline in baselines)
    return f"{format_number(metric['mean'])} ({values})"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligns rows of cells, the first a header above a rule; outer columns left, others right.

    Example:
        >>> print(format_table([["metric", "model", ""], ["fid", "1.5", "lower"]]))
        metric  model
        --------------------
        fid       1.5  lower
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [
        "  ".join(
            cell.ljust(width) if index in (0, len(widths) - 1) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], rule, *lines[1:]])
