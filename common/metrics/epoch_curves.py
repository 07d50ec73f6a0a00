"""Losses and accuracy by epoch: means over each epoch's iterations, as paper C's figures 6 and 7."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.errors import UserError
from common.files import atomic_write
from common.metrics.curves import read_log

# Okabe & Ito 2008: told apart by people with any kind of colour blindness.
LOSSES = {"G_loss": ("generator", "#0072b2"), "D_loss": ("discriminator", "#d55e00")}
ACCURACIES = {"D_accuracy_real": ("real", "#009e73"), "D_accuracy_fake": ("generated", "#cc79a7")}
BOTH = ("both", "black")
GUESSING = 0.5


def epoch_plot(csv_path: str | os.PathLike[str], png_path: str | os.PathLike[str]) -> None:
    """Draws both losses over the epochs, below them the discriminator's accuracy on real and on generated.

    A discriminator that guesses has an accuracy of one half on both together.

    Args:
        csv_path: a training log with the columns ``epoch``, ``G_loss``, ``D_loss`` and, where there is an
            accuracy, ``D_accuracy_real`` and ``D_accuracy_fake``.
        png_path: the picture, written atomically.
    Raises:
        UserError: no such log, or one without epochs or losses.
    """
    means = epoch_means(read_log(csv_path))
    if not LOSSES.keys() & means.keys():
        raise UserError(f"{csv_path}: holds neither G_loss nor D_loss by epoch; train first")
    accuracies = {name: style for name, style in ACCURACIES.items() if name in means}
    figure = Figure(figsize=(9, 6.4 if accuracies else 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if accuracies else 1, 1, sharex=True, squeeze=False)[:, 0]
    _draw(axes[0], means, LOSSES, "loss")
    if accuracies:
        _draw_accuracy(axes[1], means, accuracies)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    with atomic_write(png_path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def epoch_means(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean of each column of a log over the iterations of each epoch, in order of ``epoch``.

    Epochs without a number are NaN; columns without any are left out.
    """
    if "epoch" not in columns:
        return {}
    epochs, places = np.unique(columns["epoch"], return_inverse=True)
    means = {"epoch": epochs}
    for name, values in columns.items():
        usable = np.isfinite(values)
        if name in ("epoch", "iteration") or not usable.any():
            continue
        counts = np.bincount(places[usable], minlength=len(epochs))
        sums = np.bincount(places[usable], values[usable], minlength=len(epochs))
        means[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def _draw(
    axis: Axes, means: Mapping[str, np.ndarray], styles: Mapping[str, tuple[str, str]], title: str
) -> None:
    for name, (label, colour) in styles.items():
        if name in means:
            axis.plot(means["epoch"], means[name], color=colour, linewidth=1.3, label=label)
    axis.set_title(f"{title}, mean of each epoch", loc="left", fontsize=10)
    axis.grid(alpha=0.25)
    axis.margins(x=0.01)
    axis.legend(fontsize=9, ncols=3)


def _draw_accuracy(
    axis: Axes, means: Mapping[str, np.ndarray], styles: Mapping[str, tuple[str, str]]
) -> None:
    axis.axhline(GUESSING, color="grey", linewidth=0.8, linestyle=":")
    both = np.mean([means[name] for name in styles], axis=0)
    _draw(axis, {**means, "both": both}, {**styles, "both": BOTH}, "discriminator's accuracy")
    axis.set_ylim(-0.03, 1.03)
