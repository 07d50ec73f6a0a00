"""Slices as the banks hold them: square, at one size in pixels, with the size of a pixel written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from bundles.lung_two_stage.banks import SliceBank, SliceRecord
from common.data.resizing import resize_image

AIR_HU, METAL_HU = -1024, 3071
"""Range of a CT's HU; scanners mark what lies outside their field with less."""


@dataclass(frozen=True)
class FittedSlice:
    """An entry of a `SliceBank`: (S, S) arrays as there, and its record."""

    hu: NDArray[np.int16]
    lung: NDArray[np.uint8]
    nodules: NDArray[np.uint8]
    record: SliceRecord


def fit_slice(
    hu: NDArray[np.int16],
    lung: NDArray[np.uint8],
    nodules: NDArray[np.uint8],
    spacing: Sequence[float],
    size: int,
    record: SliceRecord,
) -> FittedSlice:
    """Brings a (H, W) slice to (S, S) with square pixels, air around it; ``record`` gets the pixel's side.

    The lung is made to hold the nodules, those at the pleura too.

    Args:
        spacing: mm along rows, columns.
        size: S.
    """
    side = max(hu.shape[0] * spacing[0], hu.shape[1] * spacing[1])  # mm
    height, width = (max(1, round(n * mm * size / side)) for n, mm in zip(hu.shape, spacing, strict=True))
    values = np.full((size, size), AIR_HU, np.int16)
    labels = np.zeros((2, size, size), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    there = slice(top, top + height), slice(left, left + width)
    clipped = np.clip(hu, AIR_HU, METAL_HU).astype(np.float32)
    values[there] = np.rint(resize_image(clipped, height, width)).astype(np.int16)
    for place, whole in enumerate((holding(lung, nodules), nodules)):
        labels[place][there] = resize_labels(whole, height, width)
    kept = replace(record, spacing_mm=round(side / size, 6))
    return FittedSlice(values, labels[0], labels[1], kept)


def holding(lung: NDArray[np.uint8], nodules: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (H, W) lung with its nodules: what of them lies outside goes to the nearer lung."""
    outside = (nodules > 0) & (lung == 0)
    if not outside.any() or not lung.any():
        return lung
    rows, columns = distance_transform_edt(lung == 0, return_distances=False, return_indices=True)
    return np.where(outside, lung[rows, columns], lung)


def resize_labels(labels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(H, W) labels at another size: a pixel has the label that fills at least half of it.

    A label that fills half of no pixel keeps the one of which it fills most: no nodule is lost.
    """
    result = np.zeros((height, width), np.uint8)
    for label in np.unique(labels[labels > 0]):
        share = resize_image((labels == label).astype(np.float32), height, width)
        result[share >= min(0.5, float(share.max()))] = label
    return result


def slice_bank(slices: Sequence[FittedSlice], size: int) -> SliceBank:
    """The slices as a bank, which may be empty."""
    empty = np.zeros((0, size, size))

    def stacked(name: str, kind: type[np.generic]) -> NDArray:
        return np.array([getattr(one, name) for one in slices], kind) if slices else empty.astype(kind)

    arrays = stacked("hu", np.int16), stacked("lung", np.uint8), stacked("nodules", np.uint8)
    return SliceBank(*arrays, [one.record for one in slices])
