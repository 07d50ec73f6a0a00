"""Planes of a volume, and the square that each is stored in, there and back."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.samples import ORIENTATIONS
from common.data.transforms import FITS, resize_image
from common.errors import UserError

AXES = ("axial", "coronal", "sagittal")
INTERPOLATIONS = ("area", "linear")
INTENSITIES = ("window", "percentile")
KINDS = ("image", "label")


@dataclass(frozen=True)
class Geometry:
    """What decides the shape of the slices.

    Args:
        size: S, slices are stored S x S.
        axis: ``axial``, ``coronal`` or ``sagittal``: the planes that are cut.
        spacing: a number of mm resamples each plane to that pixel size, then crops or pads it, centred, to
            the square; None takes ``fit``.
        interpolation: of images, ``area`` (averages where it shrinks, linear where it enlarges) or ``linear``
            (a triangle as wide as a pixel of the result where it shrinks). Labels always take the nearest.
        fit: of planes without ``spacing``. ``stretch``: to the square, whatever their shape; ``pad``: whole,
            with square pixels (in mm), centred in the square; ``crop``: the middle of them, likewise.
    Raises:
        UserError: unknown names, or sizes that are none.
    """

    size: int
    axis: str = "axial"
    spacing: float | None = None
    interpolation: str = "area"
    fit: str = "stretch"

    def __post_init__(self) -> None:
        _known("axis", self.axis, AXES)
        _known("interpolation", self.interpolation, INTERPOLATIONS)
        _known("fit", self.fit, FITS)
        if not self.size >= 1:
            raise UserError(f"image_size {self.size}: give the side of the slices in pixels, at least 1")
        if self.spacing is not None and not (math.isfinite(self.spacing) and self.spacing > 0):
            raise UserError(f"spacing {self.spacing}: give the pixel size in mm, above 0, or none for fit")


@dataclass(frozen=True)
class Intensity:
    """What becomes 0 and 1.

    Args:
        kind: ``window``: ``lower`` and ``upper`` in HU (files of 8 bits keep their own range, their HU are
            nominal); ``percentile``: per cent of the volume's own voxels, for scanners without a unit (MR).
        lower, upper: become 0 and 1; values beyond are clipped.
    Raises:
        UserError: an unknown kind or an empty range.
    """

    kind: str = "window"
    lower: float = -200.0
    upper: float = 600.0

    def __post_init__(self) -> None:
        _known("intensity", self.kind, INTENSITIES)
        if not self.lower < self.upper:
            raise UserError(f"{self.kind} {self.lower}..{self.upper}: the lower end must be below the upper")
        if self.kind == "percentile" and not (self.lower >= 0 and self.upper <= 100):
            raise UserError(f"percentile {self.lower}..{self.upper}: percentiles lie within 0..100")


@dataclass(frozen=True)
class Request:
    """One file to convert.

    Args:
        path: volume, folder of a DICOM series, or 2-D picture.
        kind: ``image`` or ``label``.
        intensity: of images; None for labels.
        orientation: key of `ORIENTATIONS` that brings a 2-D picture upright.
        hu_offset: of images for a window: what to add to a volume's values to get HU, see
            `common.data.intensity.offset_to_hu`.
    Raises:
        UserError: unknown names, an image without intensity.
    """

    path: Path
    kind: str
    intensity: Intensity | None = None
    orientation: str = "identity"
    hu_offset: float | None = None

    def __post_init__(self) -> None:
        _known("kind", self.kind, KINDS)
        _known("orientation", self.orientation, tuple(ORIENTATIONS))
        if self.kind == "image" and self.intensity is None:
            raise UserError(f"{self.path}: an image needs a window or percentiles to be stored by")

    @property
    def in_hu(self) -> bool:
        """Whether the values are wanted in HU."""
        return self.kind == "image" and self.intensity is not None and self.intensity.kind == "window"


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{what} {value!r} is unknown; choose {', '.join(known)}")


# A plane larger than this comes from a wrong spacing.
MOST_PIXELS_A_SIDE = 16384


def to_planes(array: np.ndarray, axis: str) -> np.ndarray:
    """A (H, W, D) volume in display order as a view (N, h, w) of the planes cut across ``axis``.

    Coronal planes run from anterior to posterior and sagittal ones from the patient's right to the left, the
    head up in both; axial planes run from the feet up.
    """
    if axis == "coronal":
        return array.transpose(0, 2, 1)[:, ::-1]  # (H, D, W)
    if axis == "sagittal":
        return array.transpose(1, 2, 0)[:, ::-1]  # (W, D, H)
    return array.transpose(2, 0, 1)  # (D, H, W)


def from_planes(planes: np.ndarray, axis: str) -> np.ndarray:
    """The inverse of `to_planes`: (N, h, w) to (H, W, D)."""
    if axis == "coronal":
        return planes[:, ::-1].transpose(0, 2, 1)
    if axis == "sagittal":
        return planes[:, ::-1].transpose(2, 0, 1)
    return planes.transpose(1, 2, 0)


def planes_shape(shape: tuple[int, int, int], axis: str) -> tuple[int, int, int]:
    """(N, h, w) for a volume of ``shape`` (H, W, D)."""
    height, width, depth = shape
    return {
        "axial": (depth, height, width),
        "coronal": (height, depth, width),
        "sagittal": (width, depth, height),
    }[axis]


def plane_spacing(spacing: tuple[float, float, float], axis: str) -> tuple[float, float]:
    """mm along the rows and columns of a plane, from those along (H, W, D)."""
    along_rows, along_columns, along_slices = spacing
    return {
        "axial": (along_rows, along_columns),
        "coronal": (along_slices, along_columns),
        "sagittal": (along_slices, along_rows),
    }[axis]


@dataclass(frozen=True)
class Frame:
    """How a plane (h, w) lies in the stored square: resized first, then centred, cropped or padded.

    Args:
        plane: (h, w) pixels of the source's plane.
        resized: (h', w') pixels after resampling.
        size: S of the square.
    """

    plane: tuple[int, int]
    resized: tuple[int, int]
    size: int

    @classmethod
    def of(
        cls, geometry: Geometry, shape: tuple[int, int, int], spacing: tuple[float, float, float]
    ) -> Frame:
        """The frame of all planes of a volume; ``shape`` and ``spacing`` along (H, W, D).

        Raises:
            UserError: the spacing asks for planes beyond any use.
        """
        _, height, width = planes_shape(shape, geometry.axis)
        if geometry.spacing is None and geometry.fit == "stretch":
            return cls((height, width), (geometry.size, geometry.size), geometry.size)
        pixel = plane_spacing(spacing, geometry.axis)
        sides = [extent * mm for extent, mm in zip((height, width), pixel, strict=True)]
        side = geometry.spacing or (max(sides) if geometry.fit == "pad" else min(sides)) / geometry.size
        rows, columns = (max(1, round(extent / side)) for extent in sides)
        if max(rows, columns) > MOST_PIXELS_A_SIDE:
            raise UserError(
                f"spacing {side:g} mm makes planes of {rows} x {columns} pixels; give a larger one"
            )
        return cls((height, width), (rows, columns), geometry.size)

    def image(self, plane: np.ndarray, interpolation: str) -> np.ndarray:
        """A float (h, w) plane as float32 (S, S); padding is 0."""
        resized = resample(np.asarray(plane, np.float32), *self.resized, interpolation)
        if self.resized == (self.size, self.size):
            return resized
        square = np.zeros((self.size, self.size), np.float32)
        square[self._inside[0]] = resized[self._inside[1]]
        return square

    def label(self, plane: np.ndarray) -> np.ndarray:
        """A (h, w) plane of labels as (S, S): the nearest pixel's, 0 in the padding."""
        square = np.zeros((self.size, self.size), plane.dtype)
        square[self._inside[0]] = plane[self._taken]
        return square

    def image_back(self, square: np.ndarray, fill: float) -> np.ndarray:
        """A float (S, S) square as float32 (h, w), linearly; ``fill`` where the plane was cropped away."""
        canvas = np.full(self.resized, fill, np.float32)
        canvas[self._inside[1]] = square[self._inside[0]]
        return resize_image(canvas, *self.plane)

    def label_back(self, square: np.ndarray, fill: float) -> np.ndarray:
        """A (S, S) square of labels as (h, w) of the same type, by the nearest pixel."""
        canvas = np.full(self.resized, fill, square.dtype)
        canvas[self._inside[1]] = square[self._inside[0]]
        rows, columns = (nearest(*pair) for pair in zip(self.resized, self.plane, strict=True))
        return canvas[rows[:, None], columns]

    @cached_property
    def _inside(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The common part of square and resized plane, in the indices of each."""
        pairs = [_overlap(self.size, extent) for extent in self.resized]
        return (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])

    @cached_property
    def _taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column indices of the plane's pixels that the common part takes."""
        rows, columns = (nearest(*pair) for pair in zip(self.plane, self.resized, strict=True))
        return rows[self._inside[1][0]][:, None], columns[self._inside[1][1]]


def _overlap(size: int, extent: int) -> tuple[slice, slice]:
    """Where a centred line of ``extent`` pixels meets one of ``size``: in the latter, in the former."""
    first = (size - extent) // 2  # negative where the extent is cropped
    start, stop = max(first, 0), min(first + extent, size)
    return slice(start, stop), slice(start - first, stop - first)


def nearest(source: int, target: int) -> np.ndarray:
    """For each of ``target`` pixels, the one of ``source`` whose centre is nearest."""
    return np.minimum(((np.arange(target) + 0.5) * source / target).astype(np.intp), source - 1)


def resample(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """A float32 (h, w) image at (height, width); each side is averaged or interpolated as it needs."""
    rows, columns = image.shape
    if interpolation == "area" and rows % height == 0 and columns % width == 0:
        return block_means(image, rows // height, columns // width)
    picture = Image.fromarray(np.ascontiguousarray(image))
    for target in ((columns, height), (width, height)):
        shrinks = target[0] < picture.width or target[1] < picture.height
        how = Image.Resampling.BOX if interpolation == "area" and shrinks else Image.Resampling.BILINEAR
        if target != picture.size:
            picture = picture.resize(target, how)
    return np.asarray(picture)


def block_means(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over blocks of rows x columns pixels: what PIL's box filter gives, in less than half its time."""
    image = functools.reduce(np.add, (image[start::rows] for start in range(rows)))
    image = functools.reduce(np.add, (image[:, start::columns] for start in range(columns)))
    return image * np.float32(1 / (rows * columns))
