"""Which axial slices of volumes are taken: those with lung, some millimetres apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from common.data.lung_segmentation import segment_lungs
from common.data.samples import AnySample
from common.data.volume_io import Volume, open_volume
from common.errors import UserError

logger = logging.getLogger(__name__)
ROUNDING_MM = 1e-3
LEAST_LUNG = 0.3
"""Lung area of a slice, as a share of the volume's largest one, from which it is taken."""


def spaced_slices(samples: Sequence[AnySample], slice_mm: float | None) -> list[AnySample]:
    """The samples without those slices of volumes that are too close to one another, or show little lung.

    Neighbours of 1 mm are nearly the same picture, and a volume of 300 slices would outweigh 40 patients of
    one slice. Pictures and volumes of one slice all stay. Of volumes that are no HU the lung cannot be told:
    their slices are spaced over the whole.

    Args:
        samples: slices of a volume one after the other.
        slice_mm: least distance of the slices taken; None takes all.
    Raises:
        UserError: not a distance above 0, or a volume in HU without a lung.
    """
    if slice_mm is None:
        return list(samples)
    if not slice_mm > 0:
        raise UserError(f"slice_mm {slice_mm}: give a distance above 0 mm, or null for all slices")
    kept: list[AnySample] = []
    for _, run in groupby(samples, key=lambda sample: (sample.image, sample.index is None)):
        slices = list(run)
        kept += slices if len(slices) == 1 else _of_volume(slices, float(slice_mm))
    if len(kept) < len(samples):
        logger.info(f"slice_mm {slice_mm:g}: {len(kept)} of {len(samples)} slices are taken")
    return kept


def _of_volume(slices: list[AnySample], slice_mm: float) -> list[AnySample]:
    volume = open_volume(slices[0].image)
    if not volume.has_spacing:
        raise UserError(
            f"{slices[0].image}: gives no distance between its slices, which slice_mm needs; "
            "put it into the header, or set slice_mm null"
        )
    found = volume.calibrate(slices[0].hu_offset, slices[0].source_range, slices[0].image)
    shown = _with_lung(volume, slices[0], found.offset) if found.is_hu else np.ones(volume.depth, bool)
    taken: list[AnySample] = []
    last = -np.inf  # mm
    for sample in slices:
        place = (sample.index or 0) * volume.spacing[2]
        if shown[sample.index or 0] and place - last >= slice_mm - ROUNDING_MM:
            taken.append(sample)
            last = place
    return taken


def _with_lung(volume: Volume, sample: AnySample, offset: float) -> np.ndarray:
    """(D,) whether each slice shows enough lung."""
    hu = volume.array + offset
    rows, columns, thickness = volume.spacing
    lungs = segment_lungs(hu.transpose(2, 0, 1), (thickness, rows, columns), name=str(sample.image))
    areas = (lungs > 0).sum((1, 2))
    return np.asarray(areas >= LEAST_LUNG * areas.max())
