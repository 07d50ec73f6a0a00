"""Segmentation of the lungs in chest CT by threshold, connected regions and closing.

The trachea and the main bronchi are followed down from slice to slice until they open into the lungs; the
right and the left lung are separated by erosion. Works for volumes, single slices and parts of slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.errors import UserError

Mask = NDArray[np.bool_]
Spacing = Sequence[float]
IN_SLICE = np.array([np.zeros((3, 3)), [[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.zeros((3, 3))], bool)


def components(mask: Mask) -> tuple[NDArray[np.int32], NDArray]:
    """Labels connected regions from 1 on, and counts the voxels of each label (0 for label 0)."""
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels, sizes


def touching_rim(mask: Mask) -> Mask:
    """Returns the regions of each slice that touch its rim."""
    labels, _ = ndimage.label(mask, IN_SLICE)
    rim = np.concatenate([labels[:, [0, -1]].ravel(), labels[:, :, [0, -1]].ravel()])
    touching = np.zeros(labels.max() + 1, bool)
    touching[rim] = True
    touching[0] = False
    return np.asarray(touching[labels])


def close_slice(mask: Mask, radius_mm: float, spacing: Spacing) -> Mask:
    """Closes a mask (H, W) with a disc of ``radius_mm``, by distance transforms."""
    pad = [int(np.ceil(radius_mm / size)) + 1 for size in spacing]
    padded = np.pad(mask, [(pad[0], pad[0]), (pad[1], pad[1])])
    grown = ndimage.distance_transform_edt(~padded, sampling=spacing) <= radius_mm
    closed = ndimage.distance_transform_edt(grown, sampling=spacing) > radius_mm
    return np.asarray(closed[pad[0] : -pad[0], pad[1] : -pad[1]] | mask)


def fill_slice(mask: Mask, largest_cm2: float, spacing: Spacing) -> Mask:
    """Fills the holes of a mask (H, W) that are not larger than ``largest_cm2``."""
    labels, sizes = components(ndimage.binary_fill_holes(mask) & ~mask)
    small = sizes * spacing[0] * spacing[1] / 100 <= largest_cm2
    small[0] = False
    return np.asarray(mask | small[labels])


TRACHEA_MM2 = 40.0, 900.0
"""Range of cross-sections: from a child's trachea to the carina."""
MIDDLE = 0.12
"""Largest distance of the trachea's start from the middle of the body, as a share of its width."""
LOWEST_START = 0.5
"""The trachea starts in the upper half of the scan."""


def find_airway(inner: Mask, body: Mask, pixel_mm2: float) -> Mask:
    """Finds the central airways in the air inside the body.

    Starts at the topmost slice with a small region of air near the middle of the body; further down all small
    regions that overlap those of the slice above belong to it, until they open into the lungs.

    Args:
        inner: (Z, H, W) air inside the body, slices from the feet up.
        body: (Z, H, W) the body with everything inside.
        pixel_mm2: area of a pixel.
    """
    labels, count = ndimage.label(inner, IN_SLICE)
    area = np.bincount(labels.ravel(), minlength=count + 1) * pixel_mm2
    airway = np.zeros(inner.shape, bool)
    small = area <= TRACHEA_MM2[1]
    small[0] = False
    above: NDArray[np.int64] | None = None
    for index in range(len(inner) - 1, -1, -1):
        here = labels[index]
        if above is None:
            if index < LOWEST_START * (len(inner) - 1):
                break
            regions = _start(here, body[index], small & (area >= TRACHEA_MM2[0]))
        else:
            regions = np.unique(here[airway[index + 1]])
            regions = regions[small[regions]]
        airway[index] = np.isin(here, regions)
        above = regions if len(regions) else above
    return airway


def _start(labels: NDArray[np.int32], body: Mask, fitting: Mask) -> NDArray[np.int64]:
    """Returns the candidate regions near the middle column of the body."""
    columns = np.flatnonzero(body.any(0))
    candidates = np.unique(labels)
    candidates = candidates[fitting[candidates]]
    if not len(columns) or not len(candidates):
        return np.zeros(0, np.int64)
    middle, width = columns.mean(), np.ptp(columns) + 1
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, candidates))[:, 1]
    return candidates[np.abs(centres - middle) < MIDDLE * width]


RIGHT, LEFT = 1, 2
EROSIONS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 13.0)
"""Radii tried in turn until the lungs are separate."""
COARSE_MM = 2.0
"""Finer pixels are subsampled for this."""
LEAST_SIDE_SHARE = 0.12
"""Least share of the smaller lung in both together."""
APART = 0.25
"""Least distance of the centres of the two lungs, as a share of the width of both."""
BOTH = 0.5
"""A region wider than this share of the slice is both lungs."""


def split_sides(lungs: Mask, middle: float, spacing: Sequence[float]) -> NDArray[np.uint8]:
    """Divides lungs (Z, H, W) into right (1) and left (2).

    The lungs are eroded until there are two large regions side by side; each voxel then belongs to the nearer
    one. If there is no such pair, the middle column of the body divides a region wide enough for two lungs; a
    narrower one is the lung on whose side it lies.

    Args:
        middle: middle column of the body.
        spacing: mm along slices, rows, columns.
    """
    step = max(1, round(COARSE_MM / max(spacing[1], spacing[2])))
    size = (spacing[0], spacing[1] * step, spacing[2] * step)
    cores = _cores(lungs[:, ::step, ::step], size)
    if cores is None:
        return np.where(lungs, _by_columns(lungs.sum((0, 1)), middle), 0).astype(np.uint8)
    side = _spread(cores, size).repeat(step, 1).repeat(step, 2)  # (Z, H, W) and up to a step more
    return np.where(lungs, side[:, : lungs.shape[1], : lungs.shape[2]], 0).astype(np.uint8)


def _by_columns(counts: NDArray[np.int64], middle: float) -> NDArray[np.uint8]:
    """Returns the side of each column (W), from the lung voxels in each."""
    columns = np.arange(len(counts))
    occupied = np.flatnonzero(counts)
    if np.ptp(occupied) > BOTH * len(counts):
        return np.where(columns > middle, LEFT, RIGHT).astype(np.uint8)
    return np.full(len(counts), LEFT if np.average(columns, weights=counts) > middle else RIGHT, np.uint8)


def _spread(cores: NDArray[np.uint8], spacing: Sequence[float]) -> NDArray[np.uint8]:
    """Returns the value of the nearest core for each voxel."""
    nearest = ndimage.distance_transform_edt(cores == 0, spacing, return_distances=False, return_indices=True)
    return np.asarray(cores[tuple(nearest)])


def _cores(lungs: Mask, spacing: Sequence[float]) -> NDArray[np.uint8] | None:
    """Returns one region for each lung: `RIGHT`, `LEFT`, 0 elsewhere; None if they do not separate."""
    columns = np.flatnonzero(lungs.any((0, 1)))
    depth = None
    for radius in EROSIONS_MM:
        if radius and depth is None:  # seldom needed
            framed = np.pad(lungs, [(1, 1), (0, 0), (0, 0)], "edge")  # the ends of the scan are no pleura
            depth = ndimage.distance_transform_edt(framed, spacing)[1:-1]
        labels, sizes = components(lungs if depth is None else depth > radius)
        pair = _pair(labels, sizes, LEAST_SIDE_SHARE * lungs.sum(), APART * (np.ptp(columns) + 1))
        if pair is not None:
            return np.where(labels == pair[0], RIGHT, np.where(labels == pair[1], LEFT, 0)).astype(np.uint8)
    return None


def _pair(
    labels: NDArray[np.int32], sizes: NDArray[np.int64], least: float, apart: float
) -> tuple[int, int] | None:
    """Returns the largest region and the next largest at its side, the right lung first."""
    large = [int(label) for label in np.argsort(-sizes) if sizes[label] >= least][:4]
    centres = [
        np.average(np.arange(labels.shape[2]), weights=(labels == label).sum((0, 1))) for label in large
    ]
    for label, centre in list(zip(large, centres, strict=True))[1:]:
        if abs(centre - centres[0]) >= apart:
            return (large[0], label) if centres[0] < centre else (label, large[0])
    return None


LEVELS = 256


def otsu(values: NDArray[Any]) -> float:
    """Returns the threshold with the greatest variance between two classes of values (Otsu 1979).

    As `skimage.filters.threshold_otsu`, but of equally good thresholds between two clusters far apart the
    middle one, not the first, which is the edge of the lower cluster.
    """
    counts, edges = np.histogram(values, LEVELS)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    between = np.nan_to_num(below * above * (means[0] - means[1]) ** 2)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best[len(best) // 2]])


LUNG_HU = -400.0
"""Halfway between aerated lung (about -850 HU) and soft tissue (about 40 HU)."""
GAS_HU = -975.0
"""Regions with a lower median hold only gas (stomach, bowel); lung contains tissue and blood."""
LUNG_CLOSING_MM = 8.0
"""Nodules and vessels at the pleura are closed if their opening is narrower than twice this radius."""
LARGEST_LUNG_HOLE_CM2 = 15.0
"""Larger holes are the dome of the diaphragm or the heart; a nodule of 4 cm has 13 cm2."""
LEAST_LUNG_CM2 = 10.0
"""Least area of lung in the slice with most of it."""
LEAST_SHARE = 0.05
"""Least size of further regions, as a share of the largest."""
FRAME = 0.01
"""Width of the frame of pictures that counts as outside, as a share of the picture's width."""


def segment_lungs(
    hu: NDArray[Any],
    spacing: Sequence[float],
    threshold: float = LUNG_HU,
    closing_mm: float = LUNG_CLOSING_MM,
    name: str = "the scan",
) -> NDArray[np.uint8]:
    """Segments the lungs of an upright chest CT, with vessels and nodules, without trachea and main bronchi.

    Args:
        hu: (Z, H, W) HU, slices from the feet up, row 0 at the front, column 0 at the patient's right.
        spacing: mm along slices, rows, columns.
        threshold: HU below which a voxel holds air.
        closing_mm: radius of the closing in the slice that recovers nodules and vessels at the pleura.
        name: file name for errors.
    Returns:
        (Z, H, W) uint8: 0 outside, 1 right, 2 left lung.
    Raises:
        UserError: no lung found.

    Example:
        >>> hu = np.full((1, 40, 60), -1000)
        >>> hu[:, 2:38, 2:58] = 40
        >>> hu[:, 10:30, 8:26] = hu[:, 10:30, 34:52] = -850
        >>> np.unique(segment_lungs(hu, spacing=(5.0, 5.0, 5.0)), return_counts=True)[1].tolist()
        [1680, 360, 360]
    """
    air = np.asarray(hu) < threshold
    outside = touching_rim(air)
    inner = air & ~outside
    pixel_mm2 = float(spacing[1]) * float(spacing[2])
    airway = find_airway(inner, ~outside, pixel_mm2)
    lungs = _largest(inner & ~airway, hu)
    _check(lungs, pixel_mm2, name)
    sides = split_sides(lungs, _middle(~air), spacing)
    return _closed(sides, outside | airway, closing_mm, spacing[1:])


def segment_lung_slice(
    hu: NDArray[Any],
    spacing_mm: float,
    nominal_hu: bool = False,
    name: str = "the slice",
) -> NDArray[np.uint8]:
    """Segments the lungs of one upright axial slice, see `segment_lungs`.

    Args:
        hu: (H, W) HU.
        spacing_mm: side of a pixel.
        nominal_hu: the file had 8 bits with an unknown window; the threshold is that of Otsu.
        name: file name for errors.
    Returns:
        (H, W) uint8: 0 outside, 1 right, 2 left lung.
    Raises:
        UserError: no lung found.
    """
    values = _unframed(np.asarray(hu)) if nominal_hu else np.asarray(hu)
    threshold = otsu(values) if nominal_hu else LUNG_HU
    return segment_lungs(values[None], (1.0, spacing_mm, spacing_mm), threshold, name=name)[0]


def _unframed(picture: NDArray[Any]) -> NDArray[Any]:
    """Blackens the frame of a picture (H, W)."""
    width = max(2, round(FRAME * picture.shape[1]))
    inside = picture[width:-width, width:-width]
    return np.pad(inside, width, constant_values=picture.min()) if inside.size else picture


def _largest(inner: Mask, hu: NDArray[Any]) -> Mask:
    """Returns the large regions that are not gas alone."""
    labels, sizes = components(inner)
    kept = sizes >= LEAST_SHARE * max(1, sizes.max())
    boxes = ndimage.find_objects(labels)
    for label in np.flatnonzero(kept):
        box = boxes[label - 1]
        kept[label] = np.median(hu[box][labels[box] == label]) > GAS_HU
    return np.asarray(kept[labels])


def _check(lungs: Mask, pixel_mm2: float, name: str) -> None:
    largest_cm2 = lungs.sum((1, 2)).max() * pixel_mm2 / 100
    if largest_cm2 < LEAST_LUNG_CM2:
        raise UserError(
            f"{name}: no lung found ({largest_cm2:.0f} cm2 of aerated tissue inside the body); "
            "bring an upright chest CT in HU"
        )


def _middle(body: Mask) -> float:
    """Returns the middle column of the body."""
    columns = body.sum((0, 1))
    return float((columns * np.arange(len(columns))).sum() / max(1, columns.sum()))


def _closed(
    sides: NDArray[np.uint8], never: Mask, radius_mm: float, spacing: Sequence[float]
) -> NDArray[np.uint8]:
    """Closes each lung in the slice and fills its small holes, without growing over the other one."""
    result = sides.copy()
    margin = [int(np.ceil(radius_mm / size)) + 1 for size in spacing]
    for index, slice_sides in enumerate(sides):
        for side in (RIGHT, LEFT):
            lung = slice_sides == side
            if lung.any():
                box = _box(lung, margin)
                whole = fill_slice(close_slice(lung[box], radius_mm, spacing), LARGEST_LUNG_HOLE_CM2, spacing)
                result[index][box][whole & (result[index][box] == 0) & ~never[index][box]] = side
    return result


def _box(mask: Mask, margin: Sequence[int]) -> tuple[slice, ...]:
    """Returns the bounding box of the mask with a margin."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, part.start - m), part.stop + m) for part, m in zip(box, margin, strict=True))


THRESHOLDS = (-700.0, -250.0)
"""Range of the threshold of a picture with an unknown window."""
CLOSING_MM = 3.0
"""Vessels and nodules at the pleura are closed over when their opening is narrower than twice this."""
LARGEST_HOLE_CM2 = 4.0
"""Larger holes are no vessels; nodules are annotated."""
LEAST_CM2 = 1.0
"""Least area of lung; smaller regions of air are bronchi or noise."""


def segment_lung_part(hu: NDArray[Any], spacing_mm: float, nominal_hu: bool = False) -> NDArray[np.uint8]:
    """Segments the lung in a part of an axial slice from within the body.

    Right and left are not distinguished, and air outside the body would count as lung.

    Args:
        hu: (H, W) HU.
        spacing_mm: side of a pixel.
        nominal_hu: the file had 8 bits with an unknown window; the threshold is that of Otsu.
    Returns:
        (H, W) uint8: 0 outside, 1 lung with its vessels; all 0 if there is none.
    """
    threshold = float(np.clip(otsu(hu), *THRESHOLDS)) if nominal_hu else LUNG_HU
    spacing = (spacing_mm, spacing_mm)
    labels, sizes = components((np.asarray(hu) < threshold)[None])
    lung = (sizes * spacing_mm**2 / 100 >= LEAST_CM2)[labels[0]] & (labels[0] > 0)
    closed = close_slice(lung, CLOSING_MM, spacing)
    return fill_slice(closed, LARGEST_HOLE_CM2, spacing).astype(np.uint8)
