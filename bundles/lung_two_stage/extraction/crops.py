"""Nodule crops: all at one scale, with an alpha whose rim is soft."""

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
from common.data.nodules import NoduleScan, label_pieces
from common.errors import UserError

LARGE_SLICE = 0.5
"""Slices of a nodule are taken where it has at least this share of its largest cross-section."""

STAIRS = 0.8
"""Pixels of the file: smoothing of the distance to the mask's border, which runs in steps."""


@dataclass(frozen=True)
class CropRules:
    """How nodules are cut out.

    Args:
        crop_size: side of the square crops in pixels.
        crop_mm: the same in mm: all crops have one scale.
        rim_mm: width of the zone, half inside and half outside the mask's border, in which alpha goes from 0
            to 255.
        slices_per_nodule: crops of one nodule, spread over the slices that show it large; 1 for the largest.
        least_mm: nodules with a smaller diameter in the slice are left out.
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
    """One nodule in one slice.

    Args:
        hu: (S, S) int16.
        alpha: (S, S) uint8, 128 and more inside the mask.
        record: its entry in the bank.
        place: (slice, row, column) of its centre in the scan.
    """

    hu: NDArray[np.int16]
    alpha: NDArray[np.uint8]
    record: NoduleRecord
    place: tuple[int, float, float]


def crops_of(
    scan: NoduleScan,
    mask: NDArray[np.uint8],
    categories: Sequence[str],
    rules: CropRules,
    single: bool = False,
    lung: NDArray[np.uint8] | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[Crop]:
    """The crops of a scan's nodules. Those that cannot be used are left out and counted in ``skipped``.

    Args:
        scan: whose HU are cut.
        mask: (Z, H, W), 0 none, a category's number + 1 in a nodule.
        categories: names of the mask's values.
        rules: see there.
        single: the whole mask is one nodule, in however many pieces.
        lung: (Z, H, W) where the scan shows whole lungs.
        skipped: counts by reason.
    """
    lost: Counter[str] = Counter() if skipped is None else skipped
    pieces, count = ((mask > 0).astype(np.int32), 1) if single else label_pieces(mask)
    for number, box in enumerate(find_objects(pieces, count), 1):
        if box is None:
            continue
        inside = pieces[box[0]] == number  # (z, H, W) of the nodule's slices
        value = int(np.bincount(mask[box[0]][inside]).argmax())
        category = categories[value - 1] if value <= len(categories) else ""
        for z in _largest(inside.sum((1, 2)), rules.slices_per_nodule):
            place = box[0].start + z
            reason = _unfit(inside[z], scan.spacing[1:], rules, None if lung is None else lung[place])
            if reason:
                lost[reason] += 1
                continue
            yield _crop(scan, inside[z], place, f"n{number:02d}", category, rules)


def bank_of(crops: Sequence[Crop], rules: CropRules) -> NoduleBank:
    """The crops as a bank, which may be empty."""
    shape = (0, rules.crop_size, rules.crop_size)
    hu = np.array([crop.hu for crop in crops], np.int16) if crops else np.zeros(shape, np.int16)
    alpha = np.array([crop.alpha for crop in crops], np.uint8) if crops else np.zeros(shape, np.uint8)
    return NoduleBank(hu, alpha, [crop.record for crop in crops])


def cut(
    hu: NDArray[np.int16], inside: NDArray[np.bool_], spacing: Sequence[float], rules: CropRules
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The crop and its alpha around a nodule in a slice; beyond the slice's end its border goes on.

    Args:
        hu, inside: (H, W).
        spacing: mm along rows, columns.
    """
    size, step = rules.crop_size, rules.pixel_mm / np.asarray(spacing, np.float64)
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
    there = resampled(np.ones_like(values), "constant") > 0.999
    beside = resampled(_without(values, inside[near]))
    crop = np.where(there, resampled(gaussian_filter(values, smoothing)), beside)
    distance = without_stairs(signed_distance(inside[near], spacing))
    alpha = soft_alpha(resampled(distance, "constant", -rules.crop_mm), rules.rim_mm)
    return np.rint(crop).astype(np.int16), alpha


def _without(values: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The slice with plain lung in place of the nodule and its rim, which must not go on beyond the end."""
    covered = binary_dilation(inside, iterations=2)
    beside = binary_dilation(covered, iterations=3) & ~covered
    lung = np.median(values[beside]) if beside.any() else values.min()
    return np.where(covered, lung, values).astype(np.float32)


def signed_distance(inside: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """mm from each pixel's centre to the border of the mask (H, W), which runs between pixels; > 0 inside."""
    framed = np.pad(inside, 1)
    half = min(spacing) / 2
    within = distance_transform_edt(framed, spacing)[1:-1, 1:-1] - half
    without = distance_transform_edt(~inside, spacing) - half
    return np.where(inside, within, -without)


def without_stairs(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed distances (H, W) smoothed, with as many pixels above 0 as before: small nodules stay large."""
    smooth = gaussian_filter(distance, STAIRS)
    highest, count = np.sort(smooth, axis=None)[::-1], int((distance > 0).sum())
    return smooth - (highest[count - 1] + highest[min(count, smooth.size - 1)]) / 2


def soft_alpha(distance: NDArray[np.floating], rim_mm: float) -> NDArray[np.uint8]:
    """0 to 255 from signed distances in mm: smooth steps over the rim, 128 on the border."""
    share = np.clip(0.5 + np.asarray(distance, np.float64) / rim_mm, 0, 1)
    return np.rint(255 * share**2 * (3 - 2 * share)).astype(np.uint8)


def _largest(areas: NDArray[np.integer], most: int) -> list[int]:
    """The slices to take of a nodule with these cross-sections."""
    if most == 1:
        return [int(areas.argmax())]
    large = np.flatnonzero(areas >= LARGE_SLICE * areas.max())
    return [int(large[place]) for place in spread(len(large), most)]


def spread(there: int, most: int) -> list[int]:
    """At most ``most`` of the numbers 0 .. ``there`` - 1, evenly apart."""
    return sorted({round(place) for place in np.linspace(0, there - 1, min(there, most)).tolist()})


def _diameter(inside: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    return 2 * float(np.sqrt(inside.sum() * spacing[0] * spacing[1] / np.pi))


def _unfit(
    inside: NDArray[np.bool_], spacing: Sequence[float], rules: CropRules, lung: NDArray[np.uint8] | None
) -> str:
    """Why a nodule's slice cannot be used; empty where it can."""
    if not inside.any() or _diameter(inside, spacing) < rules.least_mm:
        return "nodules below least_mm"
    points = np.argwhere(inside)
    reach = float((np.abs(points - points.mean(0)).max(0) * spacing).max())
    if reach + rules.rim_mm / 2 + rules.pixel_mm > rules.crop_mm / 2:
        return "nodules larger than the crop"
    if lung is not None and lung.any() and inside.sum() > max((lung == side).sum() for side in (1, 2)):
        return "nodules larger than the lung"
    return ""


def _crop(
    scan: NoduleScan, inside: NDArray[np.bool_], z: int, number: str, category: str, rules: CropRules
) -> Crop:
    hu, alpha = cut(scan.hu[z], inside, scan.spacing[1:], rules)
    name = f"{scan.name}-{number}" + ("" if len(scan.hu) == 1 else f"-z{z:03d}")
    diameter = round(_diameter(inside, scan.spacing[1:]), 3)
    row, column = (float(value) for value in np.argwhere(inside).mean(0))
    record = NoduleRecord(name, scan.patient, category, diameter, rules.pixel_mm)
    return Crop(hu, alpha, record, (z, row, column))
