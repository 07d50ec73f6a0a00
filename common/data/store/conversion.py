"""From a source file to the array of its slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.data.intensity import Window, to_unit
from common.data.pictures import PICTURE_SUFFIXES, read_label_picture, read_picture
from common.data.samples import orient
from common.data.store.planes import Frame, to_planes
from common.data.store.request import Geometry, Intensity, Request
from common.data.volumes import VOLUME_SUFFIXES, Volume, is_volume
from common.errors import UserError

MOST_LABELS = 255
MR_HINT = "; for MR set percentiles instead of a window"
_WHITE = np.float32(65535)


@dataclass(frozen=True)
class Source:
    """A file's voxels (H, W, D) in display order with their place and meaning, see `Volume`.

    ``offset`` is to be added to ``array`` to get HU.
    """

    array: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]
    is_hu: bool
    source_range: tuple[float, float]
    has_spacing: bool
    offset: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, D)."""
        height, width, depth = self.array.shape
        return height, width, depth


@dataclass(frozen=True)
class Slices:
    """Converted slices (N, S, S), uint16 or uint8, with what `StoredVolume` says of them."""

    array: np.ndarray
    lower: float
    upper: float
    is_hu: bool
    values: tuple[int, ...]
    counts: np.ndarray


def read_source(request: Request, geometry: Geometry) -> Source:
    """The voxels of a volume, or of a 2-D picture as one slice.

    Raises:
        UserError: unreadable, of an unknown type, a single slice that is to be cut along its depth, or no
            voxel size where slices are asked for in mm.
    """
    path = request.path
    source = _read_volume(request) if is_volume(path) else _read_picture(request)
    if source.shape[2] == 1 and geometry.axis != "axial":
        raise UserError(f"{path}: holds one slice, which cannot be cut {geometry.axis}; use axis axial")
    if geometry.spacing is not None and not source.has_spacing:
        raise UserError(
            f"{path}: has no voxel size, so it cannot be resampled to {geometry.spacing:g} mm; "
            "leave spacing out, or write the voxel size into its header"
        )
    return source


def _read_volume(request: Request) -> Source:
    if request.orientation != "identity":
        raise UserError(f"{request.path}: orientation {request.orientation} is for pictures; leave it out")
    volume = Volume.from_file(request.path)
    offset = volume.offset(request.hu_offset, request.path, MR_HINT) if request.in_hu else 0.0
    meaning = volume.is_hu, volume.source_range, volume.has_spacing
    return Source(volume.array, volume.affine, volume.spacing, *meaning, offset)


def _read_picture(request: Request) -> Source:
    path = request.path
    if not path.name.lower().endswith(PICTURE_SUFFIXES):
        known = ", ".join((*PICTURE_SUFFIXES, *VOLUME_SUFFIXES))
        raise UserError(f"{path}: unknown file type; use one of {known} or a folder with a DICOM series")
    source_range = (0.0, 255.0)
    if request.kind == "image":
        pixels, source_range = read_picture(path)
    else:
        pixels = read_label_picture(path)
    upright = orient(pixels, request.orientation)[:, :, None]  # (H, W, 1)
    return Source(upright, np.eye(4), (1.0, 1.0, 1.0), False, source_range, has_spacing=False)


def image_slices(source: Source, geometry: Geometry, intensity: Intensity, path: Path) -> Slices:
    """Slices as uint16, 0..65535 for the unit range.

    Raises:
        UserError: a constant image, or equal percentiles.
    """
    planes = to_planes(source.array, geometry.axis)
    if all((plane == planes[0, 0, 0]).all() for plane in planes):  # the first plane says it of most volumes
        raise UserError(f"{path}: every pixel has the same value; replace or remove the image")
    lower, upper, is_hu = _meaning(source, intensity, path)
    window = Window(lower - source.offset, upper - source.offset)  # of the values as they are stored
    frame = Frame.of(geometry, source.shape, source.spacing)
    array = np.empty((len(planes), geometry.size, geometry.size), np.uint16)
    for plane, stored in zip(planes, array, strict=True):
        unit = frame.image(to_unit(plane, window, is_hu=True), geometry.interpolation)
        np.rint(unit * _WHITE, out=stored, casting="unsafe")
    return Slices(array, lower, upper, is_hu, (), np.empty(0, np.int32))


def _meaning(source: Source, intensity: Intensity, path: Path) -> tuple[float, float, bool]:
    """What becomes 0 and 1, and whether these are HU."""
    if intensity.kind == "window":
        ends = (intensity.lower, intensity.upper) if source.is_hu else source.source_range
        return float(ends[0]), float(ends[1]), source.is_hu
    lower, upper = np.percentile(source.array, (intensity.lower, intensity.upper))
    if not lower < upper:
        raise UserError(
            f"{path}: its percentiles {intensity.lower:g} and {intensity.upper:g} are both {lower:g}; "
            "widen them or give a window"
        )
    return float(lower), float(upper), False


def label_slices(source: Source, geometry: Geometry, path: Path) -> Slices:
    """Slices as uint8 codes into the file's sorted values; code 0 is value 0 whether the file has it or not.

    Raises:
        UserError: values that are no labels.
    """
    values = label_values(source.array, path)
    frame, planes = Frame.of(geometry, source.shape, source.spacing), to_planes(source.array, geometry.axis)
    array = np.empty((len(planes), geometry.size, geometry.size), np.uint8)
    counts = np.empty((len(planes), len(values)), np.int32)
    for index, plane in enumerate(planes):
        array[index] = np.searchsorted(values, frame.label(plane))
        counts[index] = np.bincount(array[index].ravel(), minlength=len(values))
    return Slices(array, float(values[0]), float(values[-1]), False, tuple(int(v) for v in values), counts)


def label_values(array: np.ndarray, path: Path) -> np.ndarray:
    """The sorted values of a label volume (H, W, D), 0 among them.

    Raises:
        UserError: negative or broken numbers, or more than 255 values beside 0.
    """
    found = np.zeros(1, array.dtype)
    for index in range(array.shape[2]):
        found = np.union1d(found, array[:, :, index])
        if found.size > MOST_LABELS + 1:
            raise UserError(
                f"{path}: holds more than {MOST_LABELS} different values, so it is no label file; "
                "save labels losslessly, one whole number for each structure"
            )
    wrong = found[(found < 0) | (found != np.rint(found))]
    if wrong.size:
        raise UserError(
            f"{path}: value {wrong[0]:g} is no label; save whole numbers from 0 (background) upwards"
        )
    return found
