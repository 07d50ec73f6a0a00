"""Figures: labels as pictures, sheets of images with captions, strips, animations and training curves.

Sheets are assembled from pixels: matplotlib would resample the images, `skimage.util.montage` has no
captions.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw, ImageFont
from scipy.signal import lfilter
from torch import Tensor

from common.data.labels import class_count, is_condition_image, structure_mask
from common.errors import UserError
from common.files import atomic_write
from common.provenance import SHEET, UNKNOWN, Provenance, png_text

# Okabe & Ito 2008, "Color universal design": told apart by people with any kind of colour blindness.
PALETTE = (
    (213, 94, 0),  # vermillion
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
    (187, 187, 187),  # grey
)
DIMMED = 0.35  # brightness that classes keep while another one is highlighted

SMALLEST_TILE = 160  # pixels; smaller images are enlarged by whole factors
GAP, HEADER, CAPTION, LEGEND = 6, 26, 18, 24  # pixels
TITLE_POINTS, NAME_POINTS = 14, 11
PAPER, INK = 255, 0
ALL_STRUCTURES = "all structures"
STRIP_COLUMNS = 10
FRAME_MS, HELD_MS = 120, 700
"""Duration of a frame of an animation; the first and the last are held longer."""


def unit_range(images: Tensor) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] (clipped) as grey levels (N, 1, H, W) in [0, 1] on the CPU."""
    return images.detach().cpu().float()[:, :1].clamp(-1, 1).add(1).div(2)


def grey_levels(images: Tensor) -> np.ndarray:
    """Images (N, 1, H, W) in [-1, 1] (clipped) as 8-bit pixels (N, H, W) uint8.

    Example:
        >>> grey_levels(torch.tensor([-1.0, 0.0, 2.0]).view(1, 1, 1, 3)).tolist()
        [[[0, 128, 255]]]
    """
    levels: np.ndarray = unit_range(images)[:, 0].mul(255).round().byte().numpy()
    return levels


def label_picture(labels: Tensor) -> Tensor:
    """Draws labels in [0, 1].

    Args:
        labels: (B, C, H, W): masks (channel c has the grey level (c + 1) / C), one channel of class indices
            0..K with K > 1 (each class in its colour), or condition images in [-1, 1].
    Returns:
        (B, 1, H, W), class maps (B, 3, H, W); float32 on the CPU.

    Example:
        >>> label_picture(torch.tensor([[[[0.0, 1.0]]]])).tolist()
        [[[[0.0, 1.0]]]]
    """
    labels = labels.detach().float().cpu()
    if is_condition_image(labels):
        return labels[:, :1].add(1).div(2)
    if labels.shape[1] == 1 and class_count(labels) > 1:
        return class_picture(labels)
    levels = torch.arange(1, labels.shape[1] + 1).view(1, -1, 1, 1) / labels.shape[1]  # (1, C, 1, 1)
    return (labels * levels).amax(dim=1, keepdim=True)


def class_picture(labels: Tensor, chosen: int | None = None) -> Tensor:
    """Draws class indices (B, 1, H, W) in colours on black (B, 3, H, W), all but class ``chosen`` dimmed."""
    indices = labels[:, 0].round().long().clamp_min(0)  # (B, H, W)
    colours = torch.tensor([colour(index) for index in range(int(indices.max()) + 1)]) / 255  # (K + 1, 3)
    colours[0] = 0
    if chosen is not None:
        colours[torch.arange(len(colours)) != chosen] *= DIMMED
    return colours[indices].permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)


def colour(index: int) -> tuple[int, int, int]:
    """Returns the colour of class ``index`` (from 1) as RGB in 0..255; the ninth class is like the first.

    Example:
        >>> colour(1)
        (213, 94, 0)
    """
    return PALETTE[(index - 1) % len(PALETTE)]


def panel_rows(labels: Tensor, count: int) -> list[int]:
    """Chooses ``count`` slices spread evenly over the areas of their labels (N, C, H, W), largest first.

    Condition images have no areas: slices are spread evenly over the set's order.
    """
    image = is_condition_image(labels)
    areas = torch.zeros(len(labels)) if image else (labels > 0.5).flatten(1).sum(1)
    order = areas.argsort(descending=True, stable=True)
    indices = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return [int(row) for row in order[indices]]


def structure_rows(labels: Tensor, structures: int) -> list[tuple[int, int]]:
    """Chooses a typical slice for each structure and, if there are several, one for all of them together.

    Args:
        labels: class indices (N, 1, H, W).
        structures: number of classes.
    Returns:
        (class index, index of the slice); class 0 stands for all classes together and comes last. Structures
        that no slice shows are missing.
    """
    rows = {index: typical_slice(structure_mask(labels, index)) for index in range(1, structures + 1)}
    if structures > 1:
        rows[0] = typical_slice(labels > 0.5)
    return [(index, row) for index, row in rows.items() if row is not None]


def typical_slice(masks: Tensor) -> int | None:
    """Finds the slice of median area among the larger half of the non-empty masks (N, 1, H, W).

    The largest slice is often an odd one, and small ones show little. None if all masks are empty.
    """
    areas = masks.flatten(1).sum(1)
    filled = int((areas > 0).sum())
    return int(areas.argsort(descending=True, stable=True)[(filled - 1) // 4]) if filled else None


def tiled(columns: Sequence[Tensor]) -> np.ndarray:
    """Arranges columns of pictures as tiles for `sheet`, enlarged to a readable size.

    Args:
        columns: (N, 1, H, W) or (N, 3, H, W) each, in [0, 1] (clipped).
    Returns:
        (N, columns, H', W', channels) uint8 with 3 channels if any column has them, else 1.
    """
    channels = max(column.shape[1] for column in columns)
    tiles = torch.stack([column.float().expand(-1, channels, -1, -1) for column in columns], dim=1)
    pixels = tiles.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).numpy()
    factor = max(1, -(-SMALLEST_TILE // pixels.shape[3]))
    return pixels.repeat(factor, axis=2).repeat(factor, axis=3)


def sheet(
    tiles: np.ndarray, titles: Sequence[str], names: Sequence[str], legend: Sequence[str] = ()
) -> Image.Image:
    """Draws tiles with titles above the columns, a name below each row and a legend of classes at the bottom.

    Args:
        tiles: (rows, columns, H, W, channels) uint8, see `tiled`.
        titles: one per column.
        names: one per row.
        legend: names of the classes in the order of their indices; requires colour tiles.
    """
    rows, columns, height, width, channels = tiles.shape
    size = (columns * (width + GAP) + GAP, HEADER + rows * (height + CAPTION) + GAP + LEGEND * bool(legend))
    picture = Image.new("RGB" if channels == 3 else "L", size, (PAPER,) * 3 if channels == 3 else PAPER)
    draw = ImageDraw.Draw(picture)
    lefts = [GAP + column * (width + GAP) for column in range(columns)]
    for left, title in zip(lefts, titles, strict=True):
        _write(draw, (left, GAP), title, width, TITLE_POINTS)
    for row, (line, name) in enumerate(zip(tiles, names, strict=True)):
        top = HEADER + row * (height + CAPTION)
        for left, tile in zip(lefts, line, strict=True):
            picture.paste(Image.fromarray(tile.squeeze(-1) if channels == 1 else tile), (left, top))
        _write(draw, (GAP, top + height + 2), name, size[0] - 2 * GAP, NAME_POINTS)
    if legend:
        _legend(draw, size[1] - LEGEND, legend)
    return picture


def _legend(draw: ImageDraw.ImageDraw, top: int, names: Sequence[str]) -> None:
    font = ImageFont.load_default(NAME_POINTS)
    left, side = GAP, LEGEND - 3 * GAP
    for index, name in enumerate(names, start=1):
        draw.rectangle((left, top, left + 2 * side, top + 2 * side), colour(index), outline=(INK,) * 3)
        draw.text((left + 2 * side + GAP, top), name, (INK,) * 3, font)
        left += 2 * side + 3 * GAP + round(font.getlength(name))


def _write(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, width: int, points: int) -> None:
    """Writes a text; one that is wider than ``width`` pixels is cut at its beginning."""
    font, shown = ImageFont.load_default(points), text
    while shown.lstrip(".") and font.getlength(shown) > width:
        text = text[1:]
        shown = f"...{text}"
    draw.text(position, shown, "black", font)


def save_panel(
    path: str | os.PathLike[str],
    masks: Tensor,
    generated: Tensor,
    real: Tensor,
    names: Sequence[str],
    structures: Sequence[str] = (),
) -> None:
    """Writes conditions, generated images, real images and their differences as columns of a PNG, atomically.

    Black is the lower end of the window, white the upper. The difference is scaled to its own maximum over
    the panel, which its title states in per cent of the window.

    Args:
        path: the PNG file.
        masks: (N, C, H, W): masks, class indices (shown in colours) or condition images.
        generated, real: (N, 1, H, W) in [-1, 1].
        names: N captions.
        structures: names of the classes, for the legend.
    """
    title = "condition" if is_condition_image(masks) else "mask"
    _save_panel(path, title, label_picture(masks), generated, real, names, structures)


def save_structure_panel(
    path: str | os.PathLike[str],
    labels: Tensor,
    generated: Tensor,
    real: Tensor,
    names: Sequence[str],
    structures: Sequence[str],
) -> None:
    """Writes a panel with a row per structure and one for all, as in figure 4 of Habijan 2022.

    Slices are chosen by `structure_rows`. The mask of a row dims the other structures. No file is written if
    no slice shows a structure.

    Args:
        path: the PNG file.
        labels: class indices (N, 1, H, W) of a whole test set.
        generated, real: (N, 1, H, W) in [-1, 1].
        names: N names of the slices.
        structures: names of the classes.
    """
    chosen = structure_rows(labels, len(structures))
    if not chosen:
        return
    pictures = [class_picture(labels[row : row + 1].cpu(), index or None) for index, row in chosen]
    rows = [row for _, row in chosen]
    captions = [
        f"{structures[index - 1] if index else ALL_STRUCTURES}: {names[row]}" for index, row in chosen
    ]
    _save_panel(path, "mask", torch.cat(pictures), generated[rows], real[rows], captions, structures)


def _save_panel(
    path: str | os.PathLike[str],
    title: str,
    conditions: Tensor,
    generated: Tensor,
    real: Tensor,
    names: Sequence[str],
    structures: Sequence[str],
) -> None:
    first, second = (unit_range(images) for images in (generated, real))
    difference = (first - second).abs()
    largest = float(difference.max()) if difference.numel() else 0.0
    titles = (title, "generated", "real", f"|generated - real|, white = {largest:.0%}")
    tiles = tiled([conditions, first, second, difference / max(largest, 1e-6)])
    legend = structures if conditions.shape[1] == 3 else ()
    with atomic_write(path) as temporary:
        sheet(tiles, titles, names, legend).save(temporary, format="PNG", pnginfo=png_text(SHEET))


def save_strip(
    path: str | os.PathLike[str],
    images: Tensor,
    captions: Sequence[str],
    columns: int = STRIP_COLUMNS,
    provenance: Provenance = UNKNOWN,
) -> None:
    """Writes images (N, 1, H, W) in [-1, 1] as one PNG in rows of equal length, a caption above each image.

    Args:
        columns: largest number of images in a row.
        provenance: what made the images; stored in the file.
    """
    columns = -(-len(images) // -(-len(images) // columns))
    rows = []
    for start in range(0, len(images), columns):
        tiles = tiled([unit_range(image[None]) for image in images[start : start + columns]])
        rows.append(sheet(tiles, captions[start : start + columns], [""]))
    picture = Image.new("L", (rows[0].width, rows[0].height * len(rows)), PAPER)
    for number, row in enumerate(rows):
        picture.paste(row, (0, number * row.height))
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=provenance.png())


def save_animation(path: str | os.PathLike[str], images: Tensor, provenance: Provenance = UNKNOWN) -> None:
    """Writes images (N, 1, H, W) in [-1, 1] as an endless GIF of N frames in 256 grey levels.

    Args:
        provenance: what made the images; stored as the file's comment.
    """
    frames = [Image.fromarray(pixels) for pixels in grey_levels(images)]
    times = [FRAME_MS] * len(frames)
    times[0] = times[-1] = HELD_MS
    with atomic_write(path) as temporary:
        frames[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=times,
            loop=0,
            comment=provenance.text,
        )


POSITION_COLUMNS = ("iteration", "epoch")
FIRST = ("G_loss", "D_loss", "D_accuracy_real", "D_accuracy_fake")
AVERAGE = "_ema"  # suffix of a column's logged moving average, see `common.handlers.monitors`
SMOOTH_FROM = 50  # points; shorter logs are drawn as they are
SPAN_FRACTION = 0.025  # of the log: memory of the moving average
LOSSES = {"G_loss": ("generator", "#0072b2"), "D_loss": ("discriminator", "#d55e00")}
ACCURACIES = {"D_accuracy_real": ("real", "#009e73"), "D_accuracy_fake": ("generated", "#cc79a7")}


def convergence_plot(csv_path: str | os.PathLike[str], png_path: str | os.PathLike[str]) -> None:
    """Plots each column of a training log over its iterations, thin as logged and bold as a moving average.

    The losses of generator and discriminator come first, then the discriminator's accuracy on real and on
    generated images (figures 2 and 3 of Habijan 2022), then the rest in the log's order. The bold line is the
    logged average (column ``<name>_ema``) if there is one.

    Args:
        csv_path: a CSV file with a header: ``iteration``, perhaps ``epoch``, then one column per named loss.
            Empty cells are skipped.
        png_path: the figure, written atomically.
    Raises:
        UserError: the log is missing, has no ``iteration`` column or no numbers.
    """
    columns = read_log(csv_path)
    names = drawn_names(columns)
    if not names:
        raise UserError(f"{csv_path}: holds no losses; train first")
    figure = Figure(figsize=(9, 1.9 * len(names) + 0.7), layout="constrained")
    axes = np.ravel(figure.subplots(len(names), 1, sharex=True))
    for axis, name in zip(axes, names, strict=True):
        _plot_column(axis, columns["iteration"], columns[name], columns.get(name + AVERAGE), name)
    axes[-1].set_xlabel("iteration")
    _save_figure(figure, png_path)


def epoch_plot(csv_path: str | os.PathLike[str], png_path: str | os.PathLike[str]) -> None:
    """Plots both losses over the epochs and below them the discriminator's accuracy on both kinds of images.

    The dotted line at one half is the accuracy of guessing.

    Args:
        csv_path: a training log with the columns ``epoch``, ``G_loss``, ``D_loss`` and perhaps
            ``D_accuracy_real`` and ``D_accuracy_fake``.
        png_path: the figure, written atomically.
    Raises:
        UserError: no such log, or one without epochs or losses.
    """
    means = epoch_means(read_log(csv_path))
    if not LOSSES.keys() & means.keys():
        raise UserError(f"{csv_path}: holds neither G_loss nor D_loss by epoch; train first")
    accuracies = {name: style for name, style in ACCURACIES.items() if name in means}
    figure = Figure(figsize=(9, 6.4 if accuracies else 3.4), layout="constrained")
    axes = figure.subplots(2 if accuracies else 1, 1, sharex=True, squeeze=False)[:, 0]
    _plot_epochs(axes[0], means, LOSSES, "loss")
    if accuracies:
        means["both"] = np.mean([means[name] for name in accuracies], axis=0)
        _plot_epochs(axes[1], means, {**accuracies, "both": ("both", "black")}, "discriminator's accuracy")
        axes[1].axhline(0.5, color="grey", linewidth=0.8, linestyle=":", zorder=0.5)
        axes[1].set_ylim(-0.03, 1.03)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _save_figure(figure, png_path)


def read_log(csv_path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the columns of a training log as float64 arrays, NaN where a cell is empty or no number.

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
    return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0] if name}


def moving_average(values: np.ndarray, decay: float) -> np.ndarray:
    """Returns the exponential moving average, corrected for its start (Kingma & Ba 2015, section 3).

    Example:
        >>> moving_average(np.array([4.0, 1.0]), 0.5).tolist()  # 2 / 0.5, (1 + 0.5) / 0.75
        [4.0, 2.0]
    """
    averages: np.ndarray = lfilter([1 - decay], [1, -decay], values)
    return averages / (1 - decay ** np.arange(1, len(values) + 1))


def drawn_names(columns: Mapping[str, np.ndarray]) -> list[str]:
    """Lists the columns that get their own axes, in order: those with numbers, except averages of others."""
    names = [
        name
        for name in columns
        if name not in POSITION_COLUMNS
        and np.isfinite(columns[name]).any()
        and name.removesuffix(AVERAGE) not in columns.keys() - {name}
    ]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def epoch_means(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the mean of each column of a log over the iterations of each epoch, in order of ``epoch``.

    Epochs without a number are NaN; columns without any number are missing.
    """
    if "epoch" not in columns:
        return {}
    epochs, indices = np.unique(columns["epoch"], return_inverse=True)
    means = {"epoch": epochs}
    for name, values in columns.items():
        usable = np.isfinite(values)
        if name in POSITION_COLUMNS or not usable.any():
            continue
        counts = np.bincount(indices[usable], minlength=len(epochs))
        sums = np.bincount(indices[usable], values[usable], minlength=len(epochs))
        means[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def _plot_column(
    axis: Axes, iterations: np.ndarray, column: np.ndarray, average: np.ndarray | None, name: str
) -> None:
    usable = np.isfinite(column)
    steps, values = iterations[usable], column[usable]
    bold = None if average is None else average[usable]
    if bold is None and len(values) >= SMOOTH_FROM:
        bold = moving_average(values, 1 - 1 / (SPAN_FRACTION * len(values)))
    axis.plot(steps, values, color="tab:blue", linewidth=0.7, alpha=1.0 if bold is None else 0.35)
    if bold is not None:
        axis.plot(steps, bold, color="tab:blue", linewidth=1.6)
    if np.ptp(values) < 1e-6 * max(1.0, float(np.abs(values).max())):  # a constant: no zoom into rounding
        axis.set_ylim(values[0] - 0.5, values[0] + 0.5)
    if "accuracy" in name:
        axis.set_ylim(-0.03, 1.03)
    _finish(axis, name if bold is None else f"{name}, bold: moving average")


def _plot_epochs(
    axis: Axes, means: Mapping[str, np.ndarray], styles: Mapping[str, tuple[str, str]], title: str
) -> None:
    for name, (label, line_colour) in styles.items():
        if name in means:
            axis.plot(means["epoch"], means[name], color=line_colour, linewidth=1.3, label=label)
    axis.legend(fontsize=9, ncols=3)
    _finish(axis, f"{title}, mean of each epoch")


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=10)
    axis.grid(alpha=0.25)
    axis.margins(x=0.01)


def _save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        return float("nan")
