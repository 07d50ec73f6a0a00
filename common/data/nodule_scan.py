"""A scan with its nodules in memory: HU, mask and annotations on one upright grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.gray_levels import hu_by_levels
from common.data.intensity import Window, to_hu, to_unit, window_by_name
from common.data.luna import paint_spheres, voxels_of
from common.data.nodule_layouts import EXCLUDED, NoduleSample
from common.data.pictures import read_label_picture, read_picture
from common.data.volumes import Volume, is_volume, open_volume
from common.errors import UserError

EVERY_NEIGHBOUR = np.ones((3, 3, 3), np.uint8)
BY_WINDOW, BY_LEVELS = GRAYS = "window", "levels"
"""What black and white of a picture are: the window's ends, or what makes its lung and soft tissue right."""


@dataclass(frozen=True)
class Nodule:
    """One annotated nodule.

    Args:
        centre_voxel: (slice, row, column) of the scan's arrays, as fractions.
        centre_mm: the same in mm from the first voxel's centre: ``centre_voxel * spacing``.
        diameter_mm: as annotated; of a mask the sphere's of equal volume (in pictures the disc's of equal
            area).
        category: a name of the scan's ``categories``; empty where there are none.
    """

    centre_voxel: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    category: str = ""


@dataclass(frozen=True)
class NoduleScan:
    """A CT scan, or a picture as a scan of one slice.

    Args:
        hu: int16 (Z, H, W), upright: slices from the feet up, row 0 at the front of the patient, column 0 at
            the patient's right.
        mask: uint8 (Z, H, W): 0 none, the category's number + 1 in a nodule (1 where there are none).
        spacing: mm along slices, rows and columns.
        name: unique in its set and safe as a file name.
        patient: the unit of the splits.
        nodules: in a fixed order.
        categories: names of the mask's values 1, 2, ...; may be empty.
        nominal_hu: the file has no HU; black and white stand for the ends of the window.
        excluded: findings that count neither as nodules nor as false positives; not in the mask.
    """

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    name: str
    patient: str
    nodules: tuple[Nodule, ...]
    categories: tuple[str, ...] = ()
    nominal_hu: bool = False
    excluded: tuple[Nodule, ...] = ()

    def in_mm(self, voxels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Voxels (..., 3) as mm from the first voxel's centre: the frame of `Nodule.centre_mm`."""
        return np.asarray(voxels, dtype=np.float64) * np.asarray(self.spacing)

    def excluded_mask(self) -> NDArray[np.uint8]:
        """uint8 {0, 1} (Z, H, W): the excluded findings as spheres of their diameters."""
        centres = np.array([finding.centre_voxel for finding in self.excluded]).reshape(-1, 3)
        diameters = [finding.diameter_mm for finding in self.excluded]
        return paint_spheres(self.hu.shape, self.spacing, centres, diameters)


def read_nodule_scan(
    sample: NoduleSample, window: str | Window | Sequence[float] = "lung", gray: str = BY_WINDOW
) -> NoduleScan:
    """Reads a scan as `common.data.nodule_layouts.find_nodule_scans` lists it.

    Args:
        sample: the record.
        window: whose ends are black and white of files that are not HU.
        gray: what the gray of a picture means: `BY_WINDOW`, or `BY_LEVELS` for pictures that were stretched
            one by one, see `common.data.gray_levels`.
    Raises:
        UserError: unreadable, sizes that differ, an annotation outside, a value that is no category.
    """
    limits = window_by_name(window)
    if is_volume(sample.image):
        volume = open_volume(sample.image)
        offset = volume.offset(sample.hu_offset, sample.image)
        hu = _upright(_calibrated(volume.array, limits, volume.is_hu, volume.source_range, offset))
        rows, columns, slices = volume.spacing
        spacing, nominal = (slices, rows, columns), not volume.is_hu
    else:
        picture, source_range = read_picture(sample.image)
        hu = _calibrated(picture, limits, False, source_range)[None]
        volume, spacing, nominal = None, (sample.pixel_mm,) * 3, True
        if gray == BY_LEVELS:
            hu = hu_by_levels(picture, _read_mask(sample, hu.shape)[0] > 0, limits)[None]
    mask, nodules = _truth(sample, volume, hu.shape, spacing)
    excluded = _excluded(sample, volume, spacing)
    return NoduleScan(
        hu, mask, spacing, sample.name, sample.patient, nodules, sample.kinds, nominal, excluded
    )


def nodules_of(
    mask: NDArray[np.uint8], spacing: Sequence[float], kinds: Sequence[str] = (), single: bool = False
) -> tuple[Nodule, ...]:
    """The nodules of a mask (Z, H, W): pieces that touch or lie one voxel apart, or all of it as one.

    Args:
        mask: see `NoduleScan`.
        spacing: mm.
        kinds: names of the mask's values.
        single: all pieces are one nodule.
    """
    pieces, count = ((mask > 0).astype(np.int32), int(mask.any())) if single else pieces_of(mask)
    boxes = ndimage.find_objects(pieces, count)
    return tuple(
        _measured(mask[box], pieces[box] == number, box, spacing, kinds)
        for number, box in enumerate(boxes, 1)
        if box is not None
    )


def pieces_of(mask: NDArray[np.generic]) -> tuple[NDArray[np.int32], int]:
    """The pieces of a mask (Z, H, W), numbered from 1, and how many: one voxel between parts them not."""
    present = np.asarray(mask) > 0
    pieces, count = ndimage.label(ndimage.binary_dilation(present, EVERY_NEIGHBOUR), EVERY_NEIGHBOUR)
    return pieces * present, int(count)


def _measured(
    values: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    box: tuple[slice, ...],
    spacing: Sequence[float],
    kinds: Sequence[str],
) -> Nodule:
    """One nodule from its box of the mask; spikes of another value do not decide its category."""
    first = np.array([part.start for part in box])
    voxel = np.argwhere(inside).mean(axis=0) + first
    value = int(np.bincount(values[inside]).argmax())
    category = kinds[value - 1] if kinds else ""
    return _nodule(voxel, spacing, mask_diameter(inside, spacing, box[0] == slice(0, 1)), category)


def mask_diameter(inside: NDArray[np.bool_], spacing: Sequence[float], flat: bool = False) -> float:
    """Diameter in mm of the sphere with a mask's volume; ``flat``: of the disc with its area."""
    count = float(np.count_nonzero(inside))
    if flat:
        return 2 * float(np.sqrt(count * spacing[1] * spacing[2] / np.pi))
    return 2 * float(np.cbrt(0.75 * count * np.prod(spacing) / np.pi))


def _nodule(
    voxel: NDArray[np.floating], spacing: Sequence[float], diameter: float, category: str = ""
) -> Nodule:
    z, y, x = (float(value) for value in voxel)
    return Nodule((z, y, x), (z * spacing[0], y * spacing[1], x * spacing[2]), float(diameter), category)


def _truth(
    sample: NoduleSample, volume: Volume | None, shape: tuple[int, ...], spacing: Sequence[float]
) -> tuple[NDArray[np.uint8], tuple[Nodule, ...]]:
    """Mask and nodules: of the mask, of the annotations, or the mask of the one and nodules of the other."""
    if not sample.annotated or volume is None:
        mask = _read_mask(sample, shape)
        return mask, nodules_of(mask, spacing, sample.kinds, sample.single)
    voxels = voxels_of(sample.annotations, volume, sample.image)
    diameters = [nodule.diameter_mm for nodule in sample.annotations]
    mask = (
        paint_spheres(shape, spacing, voxels, diameters) if sample.mask is None else _read_mask(sample, shape)
    )
    return mask, tuple(_nodule(v, spacing, d) for v, d in zip(voxels, diameters, strict=True))


def _excluded(sample: NoduleSample, volume: Volume | None, spacing: Sequence[float]) -> tuple[Nodule, ...]:
    """The findings of `EXCLUDED`."""
    if volume is None or not sample.excluded:
        return ()
    voxels = voxels_of(sample.excluded, volume, sample.image, EXCLUDED)
    return tuple(_nodule(v, spacing, f.diameter_mm) for v, f in zip(voxels, sample.excluded, strict=True))


def _read_mask(sample: NoduleSample, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    path = sample.mask
    if path is None:
        raise UserError(f"{sample.image}: has no mask of its nodules; add one of equal name")
    values = _upright(open_volume(path).array) if is_volume(path) else read_label_picture(path)[None]
    if values.shape != shape:
        raise UserError(
            f"{path}: the mask is {_size(values.shape)} but {sample.image.name} is {_size(shape)} "
            "(slices x rows x columns); export both at the same size"
        )
    return _categories(values, sample.kinds, path)


def _categories(values: np.ndarray, kinds: Sequence[str], path: Path) -> NDArray[np.uint8]:
    """The mask's values as uint8: numbers of categories, or 1 for any value where there are none."""
    if not kinds:
        return (values != 0).astype(np.uint8)
    known = (values >= 0) & (values <= len(kinds)) & (values == np.rint(values))
    if not known.all():
        names = ", ".join(f"{number} {name}" for number, name in enumerate(kinds, 1))
        raise UserError(f"{path}: {values[~known][0]:g} is no known category; expected 0 none, {names}")
    return values.astype(np.uint8)


def _calibrated(
    array: np.ndarray, window: Window, is_hu: bool, source_range: tuple[float, float], offset: float = 0.0
) -> NDArray[np.int16]:
    """HU as int16; nominal where the values are not HU. ``offset`` is added to those that are."""
    if not is_hu:
        return to_hu(to_unit(array, window, False, source_range), window)
    limits = np.iinfo(np.int16)
    if array.dtype == np.int16 and not offset:
        return array
    return np.clip(np.rint(array + np.float32(offset)), limits.min, limits.max).astype(np.int16)


def _upright(array: np.ndarray) -> np.ndarray:
    """(H, W, D) in display order as (Z, H, W)."""
    return np.ascontiguousarray(np.moveaxis(array, 2, 0))


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(extent) for extent in shape)
