"""Slices as squares: resizing of pictures and masks, and the cutting of volumes into planes, there and back.

`fit_square` and `fit_mask` resize single slices. For volumes a `Request` names a file and its intensity
range, a `Geometry` the planes and the square that they are stored in; `image_slices` and `label_slices`
convert, `Frame` holds the way there and back. MONAI's `Resize` is not used: it shrinks without averaging
where it interpolates (`bilinear`) and blurs where it averages (`area`), and what trained models see must not
change.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from common.data.hu_calibration import check_source_range
from common.data.image_io import read_label_picture, read_picture
from common.data.intensity import Window, to_unit
from common.data.mask_values import check_ignored, check_scale, check_threshold, whole_labels
from common.data.samples import ORIENTATIONS, is_volume, orient
from common.data.volume_io import Volume
from common.errors import UserError

FITS = ("pad", "crop", "stretch")


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of a float (H, W) slice; shrinking averages over the covered area (no aliasing)."""
    return _resized(np.asarray(image, dtype=np.float32), height, width, Image.Resampling.BILINEAR)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize of a uint8 (H, W) mask: no new labels appear."""
    return _resized(np.asarray(mask, dtype=np.uint8), height, width, Image.Resampling.NEAREST)


def fit_square(image: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """Resizes a float (H, W) slice in [0, 1] to a square (size, size), with 0 where the slice does not reach.

    Args:
        fit: ``pad`` takes the whole slice, ``crop`` its middle, both keep the aspect; ``stretch`` does not.
    Raises:
        UserError: ``fit`` is none of these.

    Example:
        >>> fit_square(np.ones((2, 4)), 4)[:, 0]
        array([0., 1., 1., 0.], dtype=float32)
    """
    return _centred(resize_image(image, *_fitted(image.shape, size, fit)), (size, size), np.float32)


def fit_mask(mask: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """Resizes a uint8 (H, W) mask as `fit_square` does its image, to the nearest pixel: (size, size)."""
    return _centred(resize_mask(mask, *_fitted(mask.shape, size, fit)), (size, size), np.uint8)


def unfit_square(square: np.ndarray, height: int, width: int, fit: str = "pad") -> np.ndarray:
    """Inverse of `fit_square`: float (S, S) to float32 (height, width), with 0 where it was cropped."""
    fitted = _fitted((height, width), len(square), fit)
    return resize_image(_centred(square, fitted, np.float32), height, width)


def check_fit_name(fit: str) -> str:
    """Returns ``fit`` itself if it is one of `FITS`.

    Raises:
        UserError: it is not.
    """
    if fit not in FITS:
        raise UserError(f"fit {fit!r} is unknown; choose one of {', '.join(FITS)}")
    return fit


def _fitted(shape: tuple[int, ...], size: int, fit: str) -> tuple[int, int]:
    """The (h, w) that a slice of ``shape`` is resized to before it is centred in the square."""
    if check_fit_name(fit) == "stretch":
        return size, size
    side = max(shape) if fit == "pad" else min(shape)
    height, width = (max(1, round(extent * size / side)) for extent in shape)
    return height, width


def _centred(array: np.ndarray, shape: tuple[int, int], dtype: npt.DTypeLike) -> np.ndarray:
    """Pads the array (h, w) with zeros, or crops it, to ``shape`` about its middle."""
    if array.shape == shape:
        return array
    inside = array[_middle(array.shape[0], shape[0]), _middle(array.shape[1], shape[1])]
    result = np.zeros(shape, dtype)
    result[_middle(shape[0], inside.shape[0]), _middle(shape[1], inside.shape[1])] = inside
    return result


def _middle(extent: int, size: int) -> slice:
    """The middle ``size`` of ``extent`` indices, or all if there are fewer."""
    start = max(0, (extent - size) // 2)
    return slice(start, start + min(size, extent))


def _resized(array: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    if array.shape == (height, width):
        return array
    return np.array(Image.fromarray(array).resize((width, height), how))


AXES = ("axial", "coronal", "sagittal")
INTERPOLATIONS = ("area", "linear")
INTENSITIES = ("window", "percentile")
KINDS = ("image", "label")
MOST_PIXELS_A_SIDE = 16384
"""A plane larger than this comes from a wrong spacing."""
MOST_LABELS = 255
MR_HINT = "; for MR set percentiles instead of a window"
_WHITE = np.float32(65535)


@dataclass(frozen=True)
class Geometry:
    """The shape of the slices and how planes are brought to it.

    Args:
        size: S, slices are stored S x S.
        axis: the planes to cut: ``axial``, ``coronal`` or ``sagittal``.
        spacing: a number of mm resamples each plane to that pixel size, then crops or pads it, centred, to
            the square; None for ``fit``.
        interpolation: of images, ``area`` (averages where it shrinks, linear where it enlarges) or ``linear``
            (a triangle as wide as a pixel of the result where it shrinks). Labels always take the nearest.
        fit: of planes without ``spacing``. ``stretch``: to the square, whatever their shape; ``pad``: whole,
            with square pixels (in mm), centred in the square; ``crop``: the middle of them, likewise.
    Raises:
        UserError: an unknown name, or a size below 1 or not above 0 mm.

    Example:
        >>> geometry = Geometry(size=4, fit="pad")
        >>> Frame.of(geometry, shape=(8, 4, 1), spacing=(1.0, 1.0, 5.0)).label(np.ones((8, 4), np.uint8))[0]
        array([0, 1, 1, 0], dtype=uint8)
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
    """The values that become 0 and 1.

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
        hu_offset: what to add to a volume's values to get HU, see `common.data.hu_calibration.calibrate`; for
            images with a window.
        source_range: black and white of images that are not HU; for images with a window.
        mask_threshold, ignored: of labels, see `common.data.mask_values.whole_labels`.
    Raises:
        UserError: unknown names, an image without intensity.
    """

    path: Path
    kind: str
    intensity: Intensity | None = None
    orientation: str = "identity"
    hu_offset: float | None = None
    source_range: tuple[float, float] | None = None
    mask_threshold: float | None = None
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _known("kind", self.kind, KINDS)
        _known("orientation", self.orientation, tuple(ORIENTATIONS))
        if self.kind == "image" and self.intensity is None:
            raise UserError(f"{self.path}: an image needs a window or percentiles to be stored by")

    @property
    def in_hu(self) -> bool:
        """Whether the values should be in HU."""
        return self.kind == "image" and self.intensity is not None and self.intensity.kind == "window"


def _known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{what} {value!r} is unknown; choose {', '.join(known)}")


class FileValues(NamedTuple):
    """What the user says of the values in files, for the requests of a set.

    Attributes:
        hu_offset, source_range: of images, see `Request`.
        mask_threshold, ignored: of labels, see `Request`.
    """

    hu_offset: float | None = None
    source_range: tuple[float, float] | None = None
    mask_threshold: float | None = None
    ignored: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        hu_offset: float | None = None,
        source_range: Sequence[float] | None = None,
        mask_threshold: float | None = None,
        ignore_value: int | Sequence[int] | None = None,
    ) -> FileValues:
        """Checks the settings as a config has them.

        Raises:
            UserError: one has the wrong type.

        Example:
            >>> FileValues.of(ignore_value=255).label()(Path("label.png")).ignored
            (255,)
        """
        return cls(
            hu_offset,
            None if source_range is None else check_source_range(source_range),
            None if mask_threshold is None else check_threshold(mask_threshold),
            check_ignored(ignore_value),
        )

    def image(self, intensity: Intensity) -> Callable[..., Request]:
        """Makes requests of images."""
        return partial(
            Request,
            kind="image",
            intensity=intensity,
            hu_offset=self.hu_offset,
            source_range=self.source_range,
        )

    def label(self) -> Callable[..., Request]:
        """Makes requests of labels."""
        return partial(Request, kind="label", mask_threshold=self.mask_threshold, ignored=self.ignored)


def to_planes(array: np.ndarray, axis: str) -> np.ndarray:
    """Returns a volume (H, W, D) in display order as a view (N, h, w) of its planes.

    Coronal planes run from anterior to posterior and sagittal ones from the patient's right to the left, the
    head up in both; axial planes run from the feet up.
    """
    if axis == "coronal":
        return array.transpose(0, 2, 1)[:, ::-1]  # (H, D, W)
    if axis == "sagittal":
        return array.transpose(1, 2, 0)[:, ::-1]  # (W, D, H)
    return array.transpose(2, 0, 1)  # (D, H, W)


def from_planes(planes: np.ndarray, axis: str) -> np.ndarray:
    """Inverts `to_planes`: (N, h, w) to (H, W, D)."""
    if axis == "coronal":
        return planes[:, ::-1].transpose(0, 2, 1)
    if axis == "sagittal":
        return planes[:, ::-1].transpose(2, 0, 1)
    return planes.transpose(1, 2, 0)


def planes_shape(shape: tuple[int, int, int], axis: str) -> tuple[int, int, int]:
    """Returns (N, h, w) for a volume of ``shape`` (H, W, D)."""
    height, width, depth = shape
    return {
        "axial": (depth, height, width),
        "coronal": (height, depth, width),
        "sagittal": (width, depth, height),
    }[axis]


def plane_spacing(spacing: tuple[float, float, float], axis: str) -> tuple[float, float]:
    """Returns mm along the rows and columns of a plane, from those along (H, W, D)."""
    along_rows, along_columns, along_slices = spacing
    return {
        "axial": (along_rows, along_columns),
        "coronal": (along_slices, along_columns),
        "sagittal": (along_slices, along_rows),
    }[axis]


@dataclass(frozen=True)
class Frame:
    """The position of a plane (h, w) in the stored square: resized, then centred, cropped or padded.

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
        """Returns the frame of all planes of a volume; ``shape`` and ``spacing`` along (H, W, D).

        Raises:
            UserError: the spacing gives planes larger than `MOST_PIXELS_A_SIDE`.
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
        """Converts a float plane (h, w) to float32 (S, S); padding is 0."""
        resized = resample(np.asarray(plane, np.float32), *self.resized, interpolation)
        if self.resized == (self.size, self.size):
            return resized
        square = np.zeros((self.size, self.size), np.float32)
        square[self._inside[0]] = resized[self._inside[1]]
        return square

    def label(self, plane: np.ndarray) -> np.ndarray:
        """Converts a plane of labels (h, w) to (S, S) by the nearest pixel; padding is 0."""
        square = np.zeros((self.size, self.size), plane.dtype)
        square[self._inside[0]] = plane[self._taken]
        return square

    def image_back(self, square: np.ndarray, fill: float) -> np.ndarray:
        """Converts a float square (S, S) back to float32 (h, w), linearly; ``fill`` where it was cropped."""
        canvas = np.full(self.resized, fill, np.float32)
        canvas[self._inside[1]] = square[self._inside[0]]
        return resize_image(canvas, *self.plane)

    def label_back(self, square: np.ndarray, fill: float) -> np.ndarray:
        """Converts a square of labels (S, S) back to (h, w) of the same type by the nearest pixel."""
        canvas = np.full(self.resized, fill, square.dtype)
        canvas[self._inside[1]] = square[self._inside[0]]
        rows, columns = (nearest(*pair) for pair in zip(self.resized, self.plane, strict=True))
        return canvas[rows[:, None], columns]

    @cached_property
    def _inside(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The intersection of square and resized plane, in the indices of each."""
        pairs = [_overlap(self.size, extent) for extent in self.resized]
        return (pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1])

    @cached_property
    def _taken(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column indices of the plane's pixels in that intersection."""
        rows, columns = (nearest(*pair) for pair in zip(self.plane, self.resized, strict=True))
        return rows[self._inside[1][0]][:, None], columns[self._inside[1][1]]


def _overlap(size: int, extent: int) -> tuple[slice, slice]:
    """Returns the overlap of centred lines of ``size`` and ``extent`` pixels, in the indices of each."""
    first = (size - extent) // 2  # negative where the extent is cropped
    start, stop = max(first, 0), min(first + extent, size)
    return slice(start, stop), slice(start - first, stop - first)


def nearest(source: int, target: int) -> np.ndarray:
    """Returns for each of ``target`` pixels the index of the nearest of ``source`` pixels."""
    return np.minimum(((np.arange(target) + 0.5) * source / target).astype(np.intp), source - 1)


def resample(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Resizes a float32 image (h, w) to (height, width); each side is averaged or interpolated."""
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
    """Returns means over blocks of rows x columns pixels: as PIL's box filter, in less than half its time."""
    image = functools.reduce(np.add, (image[start::rows] for start in range(rows)))
    image = functools.reduce(np.add, (image[:, start::columns] for start in range(columns)))
    return image * np.float32(1 / (rows * columns))


@dataclass(frozen=True)
class ConvertedSlices:
    """Slices (N, S, S), uint16 or uint8, with the fields of `CachedVolume` that conversion finds out."""

    array: np.ndarray
    lower: float
    upper: float
    is_hu: bool
    values: tuple[int, ...]
    counts: np.ndarray


def read_source(request: Request, geometry: Geometry) -> Volume:
    """Reads the voxels of a volume, or of a 2-D picture as one slice.

    Raises:
        UserError: unreadable, of an unknown type, a single slice that should be cut along its depth, or no
            voxel size where ``geometry`` has a spacing in mm.
    """
    path = request.path
    source = _read_volume(request)
    if source.array.shape[2] == 1 and geometry.axis != "axial":
        raise UserError(f"{path}: holds one slice, which cannot be cut {geometry.axis}; use axis axial")
    if geometry.spacing is not None and not source.has_spacing:
        raise UserError(
            f"{path}: has no voxel size, so it cannot be resampled to {geometry.spacing:g} mm; "
            "leave spacing out, or write the voxel size into its header"
        )
    return source


def _read_volume(request: Request) -> Volume:
    path = request.path
    if is_volume(path):
        if request.orientation != "identity":
            raise UserError(f"{path}: orientation {request.orientation} is for pictures; leave it out")
        return Volume.from_file(path)
    pixels, own = read_picture(path) if request.kind == "image" else (read_label_picture(path), (0.0, 255.0))
    upright = orient(pixels, request.orientation)[:, :, None]  # (H, W, 1)
    side, nominal = (1.0, 1.0, 1.0), own or (0.0, 255.0)
    return Volume(upright, np.eye(4), side, own is None, nominal, upright.shape, has_spacing=False)


def image_slices(source: Volume, geometry: Geometry, request: Request) -> ConvertedSlices:
    """Converts an image to uint16 slices: 0..65535 stands for 0..1 of the window or percentiles.

    Raises:
        UserError: a constant image, equal percentiles, or CT values that need an unknown offset to be HU.
    """
    path, intensity = request.path, request.intensity
    assert intensity is not None  # as `Request` makes sure of images
    planes = to_planes(source.array, geometry.axis)
    if all((plane == planes[0, 0, 0]).all() for plane in planes):  # ends at the first plane of most volumes
        raise UserError(f"{path}: every pixel has the same value; replace or remove the image")
    is_hu, offset = False, 0.0
    if intensity.kind == "window":
        is_hu, offset, nominal = source.calibrate(request.hu_offset, request.source_range, path, MR_HINT)
        lower, upper = (intensity.lower, intensity.upper) if is_hu else nominal
    else:
        lower, upper = np.percentile(source.array, (intensity.lower, intensity.upper))
        if not lower < upper:
            raise UserError(
                f"{path}: its percentiles {intensity.lower:g} and {intensity.upper:g} are both {lower:g}; "
                "widen them or give a window"
            )
    window = Window(float(lower) - offset, float(upper) - offset)  # of the values in the file
    frame = _frame_of(source, geometry)
    array = np.empty((len(planes), geometry.size, geometry.size), np.uint16)
    for plane, stored in zip(planes, array, strict=True):
        unit = frame.image(to_unit(plane, window, is_hu=True), geometry.interpolation)
        np.rint(unit * _WHITE, out=stored, casting="unsafe")
    return ConvertedSlices(array, float(lower), float(upper), is_hu, (), np.empty(0, np.int32))


def label_slices(source: Volume, geometry: Geometry, request: Request) -> ConvertedSlices:
    """Converts labels to uint8 codes into the sorted values of the file; code 0 is always value 0.

    Raises:
        UserError: values that are no labels.
    """
    highest = source.values.highest if source.values else float(source.array.max())
    middle = source.array[:, :, source.array.shape[2] // 2]
    check_scale(highest, middle, request.mask_threshold, request.path, request.ignored)
    whole = partial(
        whole_labels, source=request.path, threshold=request.mask_threshold, ignored=request.ignored
    )
    values = _label_values(source.array, whole, request.path)
    frame, planes = _frame_of(source, geometry), to_planes(source.array, geometry.axis)
    array = np.empty((len(planes), geometry.size, geometry.size), np.uint8)
    counts = np.empty((len(planes), len(values)), np.int32)
    for index, plane in enumerate(planes):
        array[index] = np.searchsorted(values, whole(frame.label(plane)))
        counts[index] = np.bincount(array[index].ravel(), minlength=len(values))
    codes = tuple(int(value) for value in values)
    return ConvertedSlices(array, float(values[0]), float(values[-1]), False, codes, counts)


def _frame_of(source: Volume, geometry: Geometry) -> Frame:
    height, width, depth = source.array.shape
    return Frame.of(geometry, (height, width, depth), source.spacing)


def _label_values(array: np.ndarray, whole: Callable[[np.ndarray], np.ndarray], path: Path) -> np.ndarray:
    """Returns the sorted labels of a volume (H, W, D), always with 0; ``whole`` makes labels of values."""
    values = np.zeros(1, np.int64)
    for index in range(array.shape[2]):
        values = np.union1d(values, np.unique(whole(array[:, :, index])))
        if values.size > MOST_LABELS + 1:
            raise UserError(
                f"{path}: holds more than {MOST_LABELS} different values, so it is no label file; "
                "save labels losslessly, one whole number for each structure, or give --mask_threshold"
            )
    return values
