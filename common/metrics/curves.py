"""The convergence plot: every named loss against iterations, from the training log."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.errors import UserError
from common.files import atomic_write

POSITION_COLUMNS = ("iteration", "epoch")
FIRST = ("G_loss", "D_loss", "D_accuracy_real", "D_accuracy_fake")
AVERAGE = "_ema"  # suffix of a column's logged moving average, see `common.handlers.accuracy`
ACCURACY = "accuracy"
SMOOTH_FROM = 50  # points; shorter logs are drawn as they are
SPAN_FRACTION = 0.025  # of the log, the moving average's memory


def convergence_plot(csv_path: str | os.PathLike[str], png_path: str | os.PathLike[str]) -> None:
    """Draws each column of a training log over its iterations: faint as logged, bold its moving average.

    The generator's and the discriminator's loss come first, then the discriminator's accuracy on real and on
    fake (paper B's figures 2 and 3), then the rest in the log's order. The bold line is the logged average
    (column ``<name>_ema``) where there is one, else made here.

    Args:
        csv_path: a CSV with a header: ``iteration``, perhaps ``epoch``, then one column a named loss.
            Empty cells are skipped.
        png_path: the picture, written atomically.
    Raises:
        UserError: the log is missing, has no ``iteration`` column or no numbers.
    """
    columns = read_log(csv_path)
    iterations = columns["iteration"]
    names = drawn_names(columns)
    if not names:
        raise UserError(f"{csv_path}: holds no losses; train first")
    figure = Figure(figsize=(9, 1.9 * len(names) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(np.ravel(figure.subplots(len(names), 1, sharex=True)), names, strict=True):
        _draw(axis, iterations, columns[name], columns.get(name + AVERAGE), name)
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


def drawn_names(columns: Mapping[str, np.ndarray]) -> list[str]:
    """The columns that get axes of their own, in order: those with numbers, averages of others left out."""
    names = [
        name
        for name in columns
        if name not in POSITION_COLUMNS
        and np.isfinite(columns[name]).any()
        and name.removesuffix(AVERAGE) not in columns.keys() - {name}
    ]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def _draw(
    axis: Axes, iterations: np.ndarray, column: np.ndarray, average: np.ndarray | None, name: str
) -> None:
    usable = np.isfinite(column)
    steps, values = iterations[usable], column[usable]
    bold = _made_average(values) if average is None else average[usable]
    axis.plot(steps, values, color="tab:blue", linewidth=0.7, alpha=1.0 if bold is None else 0.35)
    if bold is not None:
        axis.plot(steps, bold, color="tab:blue", linewidth=1.6)
    if np.ptp(values) < 1e-6 * max(1.0, float(np.abs(values).max())):  # a constant: no zoom into rounding
        axis.set_ylim(values[0] - 0.5, values[0] + 0.5)
    if ACCURACY in name:
        axis.set_ylim(-0.03, 1.03)
    axis.set_title(name if bold is None else f"{name}, bold: moving average", loc="left", fontsize=10)
    axis.grid(alpha=0.25)
    axis.margins(x=0.01)


def _made_average(values: np.ndarray) -> np.ndarray | None:
    """The moving average of a column without a logged one; None where it is too short to need it."""
    return (
        moving_average(values, 1 - 1 / (SPAN_FRACTION * len(values))) if len(values) >= SMOOTH_FROM else None
    )


def _value(cell: str | None) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        return float("nan")
