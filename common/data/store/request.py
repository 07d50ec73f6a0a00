"""What is asked of the store: which file, cut how, scaled how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from common.data.resizing import FITS
from common.data.samples import ORIENTATIONS
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
