"""The distortion ladder as a picture: one row a distortion, one column an extractor."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from common.files import atomic_write
from common.metrics.ladder import LADDER, Climb, Distortion

SEEN, UNSEEN, REAL = "#0072b2", "#b34700", "#4d4d4d"  # Okabe & Ito 2008, the darker ones
ROW, COLUMN, NAMES = 0.72, 3.0, 3.2  # inches
LOWEST = 0.05  # of the axis, in units of the upper bound
SMALLEST = 1e-4  # bound that is a unit; few splits may give one below 0


def ladder_picture(
    path: str | os.PathLike[str],
    images: Tensor,
    climbs: Sequence[Climb],
    example: int = 0,
    ladder: Sequence[Distortion] = LADDER,
    source: str = "",
) -> None:
    """Draws what each distortion looks like and what each extractor says of it.

    A bar is the score in units of the upper bound of real against real (the line at 1), on a logarithmic
    axis; the number beside it is the KID itself. Bars that do not pass the line are marked "as real".

    Args:
        path: the PNG, written atomically.
        images: what was distorted, (N, 1, H, W) in [-1, 1].
        climbs: one an extractor, at least one.
        example: which image is shown.
        source: where the images are from, for the foot of the picture.
    """
    rows = len(ladder) + 1
    size = (NAMES + COLUMN * len(climbs), ROW * rows + 1.5)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        rows, 2 + len(climbs), width_ratios=[1, 2.2, *[COLUMN / (NAMES / 3.2)] * len(climbs)]
    )
    shown = [("real", images[example])]
    shown += [(step.name, step.apply(images)[example]) for step in ladder]
    for row, (name, image) in enumerate(shown):
        _example(figure.add_subplot(grid[row, 0]), image[0].numpy())
        words = figure.add_subplot(grid[row, 1])
        words.axis("off")
        words.text(0, 0.5, name, va="center", fontsize=12)
    top = max(max(climb.scores.values()) / _unit(climb) for climb in climbs)
    for column, climb in enumerate(climbs):
        _bars(figure.add_subplot(grid[:, column + 2]), climb, ladder, top)
    figure.suptitle("The distortion ladder: KID of real slices against distorted ones of other patients")
    if source:
        figure.supxlabel(source, fontsize=9)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _example(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axes.axis("off")


def _bars(axes: Axes, climb: Climb, ladder: Sequence[Distortion], top: float) -> None:
    """One bar a row, aligned with the example images."""
    scores = [climb.real, *(climb.scores[step.name] for step in ladder)]
    for row, score in enumerate(scores):
        length, seen = score / _unit(climb), score > climb.bound
        colour = REAL if row == 0 else SEEN if seen else UNSEEN
        axes.barh(row, max(length, LOWEST), height=0.55, color=colour)
        words = f"{score:.3f}" if row == 0 or seen else f"{score:.3f}  as real"
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(
            max(length, LOWEST) * 1.2, row, words, va="center", fontsize=11, color=colour, bbox=background
        )
    axes.axvline(1, color=REAL, linewidth=1, zorder=0.5)
    label = "sees layout" if climb.sees_layout else "blind to layout"
    axes.set_title(f"{climb.extractor}\n{label}", fontsize=13, color=SEEN if climb.sees_layout else UNSEEN)
    axes.set_xscale("log")
    axes.set(xlim=(LOWEST, max(top, 1) * 12), ylim=(len(scores) - 0.5, -0.5), yticks=[])
    axes.set_xlabel(f"in units of the bound, {climb.bound:.3f}")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _unit(climb: Climb) -> float:
    return max(climb.bound, SMALLEST)
