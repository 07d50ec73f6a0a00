"""Nodules and slices of a bank as the networks see them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank, SliceRecord
from common.data.intensity import Window, from_network, to_hu, to_network, to_unit
from common.data.resizing import resize_image

OPAQUE = 255
"""Alpha of a pixel that is all nodule."""
INSIDE = 128
"""Alpha from which on a pixel belongs to the nodule's mask."""
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """What a layer of the composites is generated as.

    Args:
        name: ``nodules`` or ``normals``.
        images: (N, C, S, S) in [-1, 1]: the HU window, of nodules also alpha.
        records: N, of the bank.
    """

    name: str
    images: Images
    records: Sequence[NoduleRecord | SliceRecord]


def nodule_layer(bank: NoduleBank, image_size: int, window: Window) -> Layer:
    """The nodules' HU and alpha, resized where the crops have another size."""
    units = _resized(to_unit(bank.hu, window, is_hu=True), image_size)
    alpha = _resized(np.asarray(bank.alpha / OPAQUE, np.float32), image_size)
    return Layer("nodules", to_network(np.stack([units, alpha], axis=1)), bank.records)


def slice_layer(bank: SliceBank, image_size: int, window: Window) -> Layer:
    """The slices' HU, stretched to the square where they have another size."""
    units = _resized(to_unit(bank.hu, window, is_hu=True), image_size)
    return Layer("normals", to_network(units[:, None]), bank.records)


def images_to_hu(images: Images, window: Window, height: int, width: int) -> NDArray[np.int16]:
    """The first channel of (N, C, S, S) in [-1, 1] as HU of the window: (N, height, width) int16."""
    return to_hu(_resized(from_network(images[:, 0]), height, width), window)


def images_to_alpha(images: Images, size: int) -> NDArray[np.uint8]:
    """The second channel of (N, 2, S, S) in [-1, 1] as alpha: (N, size, size) uint8."""
    alpha = _resized(from_network(images[:, 1]), size)
    return np.rint(alpha * OPAQUE).astype(np.uint8)


def _resized(units: Images, height: int, width: int | None = None) -> Images:
    """(N, H, W) to (N, height, width)."""
    size = height, height if width is None else width
    if units.shape[1:] == size:
        return units
    return np.stack([resize_image(unit, *size) for unit in units])
