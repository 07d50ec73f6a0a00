"""The convergence plot: every named loss against iterations, from the training log."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.errors import UserError
from common.files import atomic_write

POSITION_COLUMNS = ("iteration", "epoch")
SMOOTH_FROM = 50  # points; shorter logs are drawn as they are
SPAN_FRACTION = 0.025  # of the log, the moving average's memory


def convergence_plot(csv_path: str | os.PathLike[str], png_path: str | os.PathLike[str]) -> None:
    """Draws each column of a training log over its iterations: faint as logged, bold its moving average.

    Args:
        csv_path: a CSV with a header: ``iteration``, perhaps ``epoch``, then one column a named loss.
            Empty cells are skipped.
        png_path: the picture, written atomically.
    Raises:
        UserError: the log is missing, has no ``iteration`` column or no numbers.
    """
    columns = read_log(csv_path)
    iterations = columns["iteration"]
    names = [name for name in columns if name not in POSITION_COLUMNS and np.isfinite(columns[name]).any()]
    if not names:
        raise UserError(f"{csv_path}: holds no losses; train first")
    figure = Figure(figsize=(9, 1.9 * len(names) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(np.ravel(figure.subplots(len(names), 1, sharex=True)), names, strict=True):
        usable = np.isfinite(columns[name])
        _draw(axis, iterations[usable], columns[name][usable], name)
    figure.axes[-1].set_xlabel("iteration")
    with atomic_write(png_path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def read_log(csv_path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The columns of a CSV as float64 arrays, NaN where a cell is empty or is no number.

    Raises:
        UserError: no such file, or no ``iteration`` column, or no rows.
    """
    path = Path(csv_path)
    if not path.is_file():
        raise UserError(f"{path}: no training log; train first")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or "iteration" not in rows[0]:
        raise UserError(f"{path}: not a training log (needs a header with 'iteration' and at least one row)")
    return {name: np.array([_value(row[name]) for row in rows]) for name in rows[0] if name}


def moving_average(values: np.ndarray, decay: float) -> np.ndarray:
    """The exponential moving average, corrected for its start (Kingma & Ba 2015, section 3)."""
    average, result = 0.0, np.empty(len(values))
    for index, value in enumerate(values):
        average = decay * average + (1 - decay) * value
        result[index] = average / (1 - decay ** (index + 1))
    return result


def _draw(axis: Axes, iterations: np.ndarray, values: np.ndarray, name: str) -> None:
    smooth = len(values) >= SMOOTH_FROM
    axis.plot(iterations, values, color="tab:blue", linewidth=0.7, alpha=0.35 if smooth else 1.0)
    if smooth:
        decay = 1 - 1 / (SPAN_FRACTION * len(values))
        axis.plot(iterations, moving_average(values, decay), color="tab:blue", linewidth=1.6)
    if np.ptp(values) < 1e-6 * max(1.0, float(np.abs(values).max())):  # a constant: no zoom into rounding
        axis.set_ylim(values[0] - 0.5, values[0] + 0.5)
    axis.set_title(name, loc="left", fontsize=10)
    axis.grid(alpha=0.25)
    axis.margins(x=0.01)


def _value(cell: str | None) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        return float("nan")
