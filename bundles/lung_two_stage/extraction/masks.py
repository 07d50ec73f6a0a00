"""Whose nodules are extracted: those that people annotated, or those that the segmenter sees."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from bundles.lung_two_stage.segmentation.methods import load_method
from common.data.nodule_scan import NoduleScan, pieces_of
from common.errors import UserError

ANNOTATED, SEGMENTED = "annotated", "segmented"
UNKNOWN = "unknown"
"""Category of a segmented nodule that lies on no annotated one."""
MaskOf = Callable[[NoduleScan], NDArray[np.uint8]]


def mask_source(masks: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> MaskOf:
    """What gives a scan its nodules' mask, uint8 (Z, H, W) as `NoduleScan.mask`.

    Args:
        masks: `ANNOTATED` or `SEGMENTED`.
        ckpt_path: the segmenter's model, for `SEGMENTED`.
        device: where it runs.
    Raises:
        UserError: neither of the two, no model, or one that draws no masks.
    """
    if masks == ANNOTATED:
        return annotated
    if masks != SEGMENTED:
        raise UserError(f"masks {masks!r} is unknown; choose {ANNOTATED} or {SEGMENTED}")
    method = load_method("segmenter", ckpt_path, device)

    def segmented(scan: NoduleScan) -> NDArray[np.uint8]:
        found = method.masks(scan)
        if found is None:
            raise UserError(f"{ckpt_path}: this model draws no masks; give the segmentation's model")
        return with_categories(found, scan.mask, scan.categories)

    return segmented


def annotated(scan: NoduleScan) -> NDArray[np.uint8]:
    """The scan's own mask."""
    return scan.mask


def category_names(categories: Sequence[str], masks: str) -> list[str]:
    """The names of a mask's values 1, 2, ... from that source."""
    return [*categories, UNKNOWN] if categories and masks == SEGMENTED else list(categories)


def with_categories(
    found: NDArray[np.uint8], known: NDArray[np.uint8], categories: Sequence[str]
) -> NDArray[np.uint8]:
    """A segmented mask {0, 1} with the category of the annotated nodule that each piece covers most of.

    Pieces that cover none have the number after the last category's; without categories all have 1.
    """
    result = np.where(found > 0, len(categories) + 1, 0).astype(np.uint8)
    if not categories:
        return result
    pieces, count = pieces_of(found)
    for number, box in enumerate(find_objects(pieces, count), 1):
        inside = pieces[box] == number
        values = known[box][inside]
        if values.any():
            result[box][inside] = np.bincount(values[values > 0]).argmax()
    return result
