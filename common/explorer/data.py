"""What an explorer shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from common.errors import UserError
from common.explorer.layers import DenseLayer

MOST_POINTS = 5000
MOST_CLASSES = 6


@dataclass(frozen=True)
class Atlas:
    """Samples on a regular grid over a plane of some latent space, drawn beforehand.

    Args:
        samples: (R, C, T, T) uint8, rows downwards and columns to the right; at least 2 x 2 of them.
        corners: captions of the samples at the top left, top right, bottom left and bottom right.
        notes: a sentence or two on what the plane is.
    """

    samples: np.ndarray
    corners: Sequence[str]
    notes: str = ""

    def __post_init__(self) -> None:
        shape = self.samples.shape
        _require(self.samples.dtype == np.uint8, f"the atlas is uint8, not {self.samples.dtype}")
        _require(len(shape) == 4 and shape[2] == shape[3], f"the atlas is (R, C, T, T), not {shape}")
        _require(min(shape[:2]) >= 2, f"the atlas has at least 2 x 2 samples, not {shape[0]} x {shape[1]}")
        _require(len(self.corners) == 4, f"the atlas has four corners, not {len(self.corners)}")


@dataclass(frozen=True)
class Explorer:
    """Points of a latent space of two or three dimensions, what they stand for, and the way back to images.

    Args:
        points: (N, 2) or (N, 3) latent coordinates, finite, N <= 5000.
        classes: (N,) integers that index ``class_names``.
        class_names: one to six names, for the legend.
        names: N captions.
        thumbnails: (N, T, T) uint8.
        decoder: dense layers from the latent (2 or 3 values) to ``image_size`` ** 2 values, rows first.
        image_size: side of the decoded images in pixels.
        value_range: the decoder's values that are shown black and white.
        atlas: a second view.
        title: the page's title.
        notes: a sentence or two on where the data come from.

    Raises:
        UserError: the latent cannot be shown: of another size, not finite, or too many points.
        ValueError: parts do not fit together.
    """

    points: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    names: Sequence[str]
    thumbnails: np.ndarray
    decoder: Sequence[DenseLayer]
    image_size: int
    value_range: tuple[float, float]
    atlas: Atlas | None = None
    title: str = "Latent explorer"
    notes: str = ""

    def __post_init__(self) -> None:
        _check_points(self.points)
        _check_classes(self)
        _check_parts(self)
        _check_decoder(self)

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return int(self.points.shape[1])


def _check_points(points: np.ndarray) -> None:
    _require(points.ndim == 2 and len(points) > 0, f"points are (N, 2) or (N, 3), not {points.shape}")
    count, size = points.shape
    if size not in (2, 3):
        raise UserError(f"explorer: a latent of {size} values cannot be shown; train with 2 or 3")
    if count > MOST_POINTS:
        raise UserError(f"explorer: {count} points are more than a page shows; choose at most {MOST_POINTS}")
    if not np.isfinite(points).all():
        raise UserError("explorer: some latent coordinates are not finite; the autoencoder has diverged")


def _check_classes(explorer: Explorer) -> None:
    classes, count = explorer.classes, len(explorer.class_names)
    _require(classes.shape == explorer.points.shape[:1], f"one class a point, not {classes.shape}")
    _require(np.issubdtype(classes.dtype, np.integer), f"classes are integers, not {classes.dtype}")
    _require(1 <= count <= MOST_CLASSES, f"one to {MOST_CLASSES} classes, not {count}")
    _require(classes.min() >= 0 and classes.max() < count, "classes index class_names")


def _check_parts(explorer: Explorer) -> None:
    count, shape = len(explorer.points), explorer.thumbnails.shape
    _require(len(explorer.names) == count, f"{len(explorer.names)} names for {count} points")
    _require(explorer.thumbnails.dtype == np.uint8, f"thumbnails are uint8, not {explorer.thumbnails.dtype}")
    fits = len(shape) == 3 and shape[0] == count and shape[1] == shape[2]
    _require(fits, f"thumbnails are ({count}, T, T), not {shape}")
    low, high = explorer.value_range
    _require(low < high, f"the value range goes upwards, not from {low} to {high}")


def _check_decoder(explorer: Explorer) -> None:
    sizes = [(layer.inputs, layer.outputs) for layer in explorer.decoder]
    _require(bool(sizes), "the decoder has at least one layer")
    _require(sizes[0][0] == explorer.dimensions, f"the decoder takes {sizes[0][0]} values")
    _require(sizes[-1][1] == explorer.image_size**2, f"the decoder gives {sizes[-1][1]} values")
    chained = all(before[1] == after[0] for before, after in pairwise(sizes))
    _require(chained, f"the decoder's layers do not follow each other: {sizes}")


def _require(condition: bool | np.bool_, message: str) -> None:
    if not condition:
        raise ValueError(message)
