"""From HU to the two lungs: a threshold, without what lies outside and the airways, closed at the pleura."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.data.lungs.airway import find_airway
from common.data.lungs.morphology import Mask, close_slice, components, fill_slice, touching_rim
from common.data.lungs.sides import LEFT, RIGHT, split_sides
from common.data.lungs.threshold import otsu
from common.errors import UserError

LUNG_HU = -400.0
"""Half way between aerated lung (about -850 HU) and soft tissue (about 40 HU)."""
GAS_HU = -975.0
"""Regions whose median is below this hold gas alone (stomach, bowel): lung has tissue and blood in it."""
CLOSING_MM = 8.0
"""Nodules and vessels at the pleura are closed over when their opening is narrower than twice this."""
LARGEST_HOLE_CM2 = 15.0
"""Larger ones within a lung are the dome of the diaphragm or the heart; a nodule of 4 cm has 13."""
LEAST_CM2 = 10.0
"""Lungs with less than this in the slice that shows most of them are none."""
LEAST_SHARE = 0.05
"""Further regions count from this share of the largest one up."""
FRAME = 0.01
"""Pictures have frames: this share of the width all around counts as outside."""


def segment_lungs(
    hu: NDArray[Any],
    spacing: Sequence[float],
    threshold: float = LUNG_HU,
    closing_mm: float = CLOSING_MM,
    name: str = "the scan",
) -> NDArray[np.uint8]:
    """The lungs of an upright chest CT with the vessels and nodules inside; without trachea and main bronchi.

    Args:
        hu: (Z, H, W) HU, slices from the feet up, row 0 at the front, column 0 at the patient's right.
        spacing: mm along slices, rows, columns.
        threshold: HU below which a voxel holds air.
        closing_mm: radius of the closing in the slice that brings back what touches the pleura.
        name: of the file, for errors.
    Returns:
        (Z, H, W) uint8: 0 outside, 1 right, 2 left lung.
    Raises:
        UserError: no lung found.
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
    closing_mm: float = CLOSING_MM,
    name: str = "the slice",
) -> NDArray[np.uint8]:
    """The lungs of one upright axial slice, as `segment_lungs` finds those of a volume.

    Args:
        hu: (H, W) HU.
        spacing_mm: side of a pixel.
        nominal_hu: the file had 8 bits and its window is unknown: the threshold is found in the slice.
        closing_mm, name: as in `segment_lungs`.
    Returns:
        (H, W) uint8: 0 outside, 1 right, 2 left lung.
    Raises:
        UserError: no lung found.
    """
    values = _unframed(np.asarray(hu)) if nominal_hu else np.asarray(hu)
    threshold = otsu(values) if nominal_hu else LUNG_HU
    return segment_lungs(values[None], (1.0, spacing_mm, spacing_mm), threshold, closing_mm, name)[0]


def _unframed(picture: NDArray[Any]) -> NDArray[Any]:
    """The (H, W) picture with a black frame over whatever frame it has."""
    width = max(2, round(FRAME * picture.shape[1]))
    inside = picture[width:-width, width:-width]
    return np.pad(inside, width, constant_values=picture.min()) if inside.size else picture


def _largest(inner: Mask, hu: NDArray[Any]) -> Mask:
    """The regions that are large and not mere gas."""
    labels, sizes = components(inner)
    kept = sizes >= LEAST_SHARE * max(1, sizes.max())
    boxes = ndimage.find_objects(labels)
    for label in np.flatnonzero(kept):
        box = boxes[label - 1]
        kept[label] = np.median(hu[box][labels[box] == label]) > GAS_HU
    return np.asarray(kept[labels])


def _check(lungs: Mask, pixel_mm2: float, name: str) -> None:
    largest_cm2 = lungs.sum((1, 2)).max() * pixel_mm2 / 100
    if largest_cm2 < LEAST_CM2:
        raise UserError(
            f"{name}: no lung found ({largest_cm2:.0f} cm2 of aerated tissue inside the body); "
            "bring an upright chest CT in HU"
        )


def _middle(body: Mask) -> float:
    """The middle column of the body."""
    columns = body.sum((0, 1))
    return float((columns * np.arange(len(columns))).sum() / max(1, columns.sum()))


def _closed(
    sides: NDArray[np.uint8], never: Mask, radius_mm: float, spacing: Sequence[float]
) -> NDArray[np.uint8]:
    """Each lung closed in the slice and its small holes filled, without growing over the other one."""
    result = sides.copy()
    margin = [int(np.ceil(radius_mm / size)) + 1 for size in spacing]
    for place, slice_sides in enumerate(sides):
        for side in (RIGHT, LEFT):
            lung = slice_sides == side
            if lung.any():
                box = _box(lung, margin)
                whole = fill_slice(close_slice(lung[box], radius_mm, spacing), LARGEST_HOLE_CM2, spacing)
                result[place][box][whole & (result[place][box] == 0) & ~never[place][box]] = side
    return result


def _box(mask: Mask, margin: Sequence[int]) -> tuple[slice, ...]:
    """The part of the slice that holds the mask, with a margin."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(slice(max(0, part.start - m), part.stop + m) for part, m in zip(box, margin, strict=True))
