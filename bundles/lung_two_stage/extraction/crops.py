"""Nodule crops, all at one scale, with a soft-edged alpha."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    affine_transform,
    binary_dilation,
    distance_transform_edt,
    find_objects,
    gaussian_filter,
)

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord
from common.data.nodules import NoduleScan, equivalent_diameter, label_pieces
from common.errors import UserError

LARGE_SLICE = 0.5
"""Slices of a nodule are taken if they show at least this share of its largest cross-section."""
SMOOTHING = 0.8
"""Of the distance to the mask's border, which has steps; in pixels of the file."""


@dataclass(frozen=True)
class CropSettings:
    """How nodules are cropped.

    Example:
        >>> CropSettings(crop_size=32, crop_mm=40.0).pixel_mm
        1.25

    Args:
        crop_size: side of the square crops in pixels.
        crop_mm: the same in mm: all crops have one scale.
        rim_mm: width of the zone, half inside and half outside the mask, in which alpha falls from 255 to 0.
        slices_per_nodule: most crops of a nodule, spread over the slices that show it large; 1 for the
            largest.
        least_mm: nodules with a smaller diameter in the slice are left out.
    Raises:
        UserError: a setting is out of range.
    """

    crop_size: int = 32
    crop_mm: float = 40.0
    rim_mm: float = 2.5
    slices_per_nodule: int = 3
    least_mm: float = 3.0

    def __post_init__(self) -> None:
        if min(self.crop_size, self.slices_per_nodule) < 1 or min(self.crop_mm, self.rim_mm) <= 0:
            raise UserError(
                f"crop_size {self.crop_size}, crop_mm {self.crop_mm}, rim_mm {self.rim_mm}, "
                f"slices_per_nodule {self.slices_per_nodule}: all must be above 0"
            )

    @property
    def pixel_mm(self) -> float:
        """Side of a crop's pixel."""
        return self.crop_mm / self.crop_size


@dataclass(frozen=True)
class Crop:
    """A nodule in a slice.

    Args:
        hu: (S, S) int16.
        alpha: (S, S) uint8, at least 128 inside the mask.
        record: its entry in the bank.
        position: (slice, row, column) of its centre in the scan.
    """

    hu: NDArray[np.int16]
    alpha: NDArray[np.uint8]
    record: NoduleRecord
    position: tuple[int, float, float]


def extract_crops(
    scan: NoduleScan,
    mask: NDArray[np.uint8],
    categories: Sequence[str],
    settings: CropSettings,
    single: bool = False,
    lung: NDArray[np.uint8] | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[Crop]:
    """Crops the nodules of a scan.

    Args:
        scan: whose HU are cropped.
        mask: (Z, H, W), 0 background, a category's index + 1 in a nodule.
        categories: names of the mask's values.
        settings: of the crops.
        single: the whole mask is one nodule, even in several pieces.
        lung: (Z, H, W) if the scan shows whole lungs.
        skipped: counts nodules that are left out, by reason.
    """
    skipped = Counter() if skipped is None else skipped
    pieces, count = ((mask > 0).astype(np.int32), 1) if single else label_pieces(mask)
    for number, box in enumerate(find_objects(pieces, count), 1):
        if box is None:
            continue
        inside = pieces[box[0]] == number  # (z, H, W), the nodule's slices
        value = int(np.bincount(mask[box[0]][inside]).argmax())
        category = categories[value - 1] if value <= len(categories) else ""
        for z in _large_slices(inside.sum((1, 2)), settings.slices_per_nodule):
            index = box[0].start + z
            diameter = equivalent_diameter(inside[z], scan.spacing, flat=True)
            plane = None if lung is None else lung[index]
            reason = _reason_to_skip(inside[z], diameter, scan.spacing[1:], settings, plane)
            if reason:
                skipped[reason] += 1
                continue
            hu, alpha = crop_nodule(scan.hu[index], inside[z], scan.spacing[1:], settings)
            name = f"{scan.name}-n{number:02d}" + ("" if len(scan.hu) == 1 else f"-z{index:03d}")
            record = NoduleRecord(name, scan.patient, category, round(diameter, 3), settings.pixel_mm)
            row, column = (float(value) for value in np.argwhere(inside[z]).mean(0))
            yield Crop(hu, alpha, record, (index, row, column))


def make_crop_bank(crops: Sequence[Crop], settings: CropSettings) -> NoduleBank:
    """The crops as a bank, which may be empty."""
    shape = (len(crops), settings.crop_size, settings.crop_size)
    hu = np.array([crop.hu for crop in crops], np.int16).reshape(shape)
    alpha = np.array([crop.alpha for crop in crops], np.uint8).reshape(shape)
    return NoduleBank(hu, alpha, [crop.record for crop in crops])


def crop_nodule(
    hu: NDArray[np.int16], inside: NDArray[np.bool_], spacing: Sequence[float], settings: CropSettings
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Crops a slice around a nodule; beyond the slice's edge the lung goes on, without the nodule.

    Args:
        hu, inside: (H, W) the slice and the nodule's mask.
        spacing: mm along rows, columns.
        settings: of the crop.
    Returns:
        The crop in HU and its alpha, (S, S).
    """
    size, step = settings.crop_size, settings.pixel_mm / np.asarray(spacing, np.float64)
    centre = np.argwhere(inside).mean(0)
    reach = np.ceil(step * size / 2).astype(int) + 2
    first = np.maximum(np.rint(centre).astype(int) - reach, 0)
    last = np.rint(centre).astype(int) + reach + 1
    near = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    values = hu[near].astype(np.float32)
    corner = centre - first - step * (size - 1) / 2

    def resampled(array: NDArray[Any], mode: str = "nearest", beyond: float = 0.0) -> NDArray[np.float32]:
        return affine_transform(
            array, step, corner, (size, size), np.float32, order=1, mode=mode, cval=beyond
        )

    smoothing = 0.5 * np.sqrt(np.maximum(step**2 - 1, 0))
    in_slice = resampled(np.ones_like(values), "constant") > 0.999
    continued = resampled(_without_nodule(values, inside[near]))
    crop = np.where(in_slice, resampled(gaussian_filter(values, smoothing)), continued)
    distance = smooth_distance(signed_distance(inside[near], spacing))
    alpha = soft_alpha(resampled(distance, "constant", -settings.crop_mm), settings.rim_mm)
    return np.rint(crop).astype(np.int16), alpha


def _without_nodule(values: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The slice with the median of the surrounding lung in the place of the nodule and its rim."""
    covered = binary_dilation(inside, iterations=2)
    around = binary_dilation(covered, iterations=3) & ~covered
    lung = np.median(values[around]) if around.any() else values.min()
    return np.where(covered, lung, values).astype(np.float32)


def signed_distance(inside: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """mm from each pixel's centre to the border of the mask (H, W), which runs between pixels; > 0 inside."""
    framed = np.pad(inside, 1)
    half = min(spacing) / 2
    within = distance_transform_edt(framed, spacing)[1:-1, 1:-1] - half
    without = distance_transform_edt(~inside, spacing) - half
    return np.where(inside, within, -without)


def smooth_distance(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooths signed distances (H, W) and keeps the number of pixels above 0: small nodules do not shrink."""
    smooth = gaussian_filter(distance, SMOOTHING)
    highest, count = np.sort(smooth, axis=None)[::-1], int((distance > 0).sum())
    return smooth - (highest[count - 1] + highest[min(count, smooth.size - 1)]) / 2


def soft_alpha(distance: NDArray[np.floating], rim_mm: float) -> NDArray[np.uint8]:
    """Alpha from signed distances in mm: a smooth step from 0 to 255 over the rim, 128 on the border."""
    share = np.clip(0.5 + np.asarray(distance, np.float64) / rim_mm, 0, 1)
    return np.rint(255 * share**2 * (3 - 2 * share)).astype(np.uint8)


def _large_slices(areas: NDArray[np.integer], most: int) -> list[int]:
    """The slices to crop of a nodule with these cross-sections."""
    if most == 1:
        return [int(areas.argmax())]
    large = np.flatnonzero(areas >= LARGE_SLICE * areas.max())
    return [int(large[n]) for n in spread_evenly(len(large), most)]


def spread_evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 to ``count`` - 1, evenly spread.

    Example:
        >>> spread_evenly(9, 3)
        [0, 4, 8]
    """
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, most)).tolist()})


def _reason_to_skip(
    inside: NDArray[np.bool_],
    diameter: float,
    spacing: Sequence[float],
    settings: CropSettings,
    lung: NDArray[np.uint8] | None,
) -> str:
    """Why a nodule's slice cannot be cropped; empty if it can."""
    if not inside.any() or diameter < settings.least_mm:
        return "nodules below least_mm"
    points = np.argwhere(inside)
    reach = float((np.abs(points - points.mean(0)).max(0) * spacing).max())
    if reach + settings.rim_mm / 2 + settings.pixel_mm > settings.crop_mm / 2:
        return "nodules larger than the crop"
    if lung is not None and lung.any() and inside.sum() > max((lung == side).sum() for side in (1, 2)):
        return "nodules larger than the lung"
    return ""
