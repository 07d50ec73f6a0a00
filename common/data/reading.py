"""From a sample to its arrays: raw gray values and a binary mask, upright, in display order."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.pictures import PICTURE_SUFFIXES, read_label_picture, read_picture
from common.data.samples import Sample, orient
from common.data.volumes import VOLUME_SUFFIXES, Volume, is_volume, open_volume
from common.errors import UserError

# More distinct values than this are no labels but a soft mask or a photograph.
MOST_LABELS = 16


class Pixels(NamedTuple):
    """Gray values of a slice: float32 (H, W), whether they are HU, else what is black and white."""

    values: np.ndarray
    is_hu: bool
    source_range: tuple[float, float]


def read_pixels(sample: Sample) -> Pixels:
    """The sample's CT slice, upright, with the meaning of its values.

    Raises:
        UserError: unreadable, in colour, 4-D, non-finite or constant, or no HU though it looks like a CT.
    """
    if is_volume(sample.image):
        volume = open_volume(sample.image)
        values, is_hu, source_range = (
            axial_slice(volume, sample.index, sample.image),
            volume.is_hu,
            volume.source_range,
        )
        if is_hu:
            values = values.astype(np.float32) + np.float32(volume.offset(sample.hu_offset, sample.image))
        constant = (
            volume.array.size > 0
            and values.min() == values.max()
            and volume.array.min() == volume.array.max()
        )
    else:
        values, source_range = read_picture(_picture(sample.image))
        is_hu, constant = False, bool(values.min() == values.max())
    if constant:
        raise UserError(f"{sample.image}: every pixel has the same value; replace or remove the image")
    return Pixels(orient(values.astype(np.float32), sample.orientation), is_hu, source_range)


def read_mask(sample: Sample) -> np.ndarray:
    """The sample's lesion mask, uint8 {0, 1} (H, W), upright.

    Raises:
        UserError: no mask, unreadable, in colour, or with values that its convention does not know.
    """
    if sample.mask is None:
        raise UserError(f"{sample.image}: has no mask; this model needs image and mask pairs")
    if is_volume(sample.mask):
        labels = axial_slice(open_volume(sample.mask), sample.index, sample.mask)
    else:
        labels = read_label_picture(_picture(sample.mask))
    return orient(binary_mask(labels, sample, sample.mask), sample.orientation)


def binary_mask(labels: np.ndarray, sample: Sample, path: Path) -> np.ndarray:
    """uint8 {0, 1} from labels by the sample's convention: a threshold, a list of values, or any non-zero.

    Raises:
        UserError: values that the convention does not know.
    """
    if sample.mask_threshold is not None:
        return (labels >= sample.mask_threshold).astype(np.uint8)
    found = np.unique(labels)
    if found.size > MOST_LABELS:
        raise UserError(
            f"{path}: holds {found.size} different values, so it is no label mask; "
            "save labels (0 and 1, losslessly) or set mask_threshold"
        )
    if (found < 0).any() or (found != np.rint(found)).any():
        raise UserError(
            f"{path}: mask values {_listed(found)} are not labels; save 0 and 1, or set mask_threshold"
        )
    if sample.mask_values is None:
        return (labels != 0).astype(np.uint8)
    unknown = found[~np.isin(found, (*sample.mask_values, *sample.mask_background))]
    if unknown.size:
        raise UserError(
            f"{path}: unexpected mask values {_listed(unknown)}; expected lesion {list(sample.mask_values)}"
        )
    return np.isin(labels, sample.mask_values).astype(np.uint8)


def axial_slice(volume: Volume, index: int | None, path: Path) -> np.ndarray:
    """Slice ``index`` (H, W) of a volume; a volume of one slice needs no index.

    Raises:
        UserError: no such slice.
    """
    if index is None and volume.depth != 1:
        raise UserError(f"{path}: holds {volume.depth} slices where one was expected; list it as a volume")
    if not 0 <= (index or 0) < volume.depth:
        raise UserError(
            f"{path}: has {volume.depth} slices but its partner has more; image and mask must fit"
        )
    return volume.array[:, :, index or 0]


def _picture(path: Path) -> Path:
    if not path.name.lower().endswith(PICTURE_SUFFIXES):
        known = ", ".join((*PICTURE_SUFFIXES, *VOLUME_SUFFIXES))
        raise UserError(f"{path}: unknown file type; use one of {known} or a folder with a DICOM series")
    return path


def _listed(values: np.ndarray) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:5])
    return shown + (", ..." if values.size > 5 else "")
