"""Groups slices without a patient id by what they show: near-identical slices are one patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.data.image_io import read_picture
from common.data.intensity import WINDOWS, to_unit
from common.data.resize import resize_image
from common.data.samples import Sample
from common.data.volume_io import is_volume, open_volume

THUMBNAIL = 32


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Reduces an image to a vector of zero mean and unit norm, so that a dot product is a correlation.

    Args:
        image: (H, W) in any range.
    Returns:
        (T * T,) float32, T being `THUMBNAIL`.

    Example:
        >>> ramp = np.arange(64.0 * 64).reshape(64, 64)
        >>> round(float(thumbnail(ramp) @ thumbnail(5 - 2 * ramp)), 4)
        -1.0
    """
    small = resize_image(image, THUMBNAIL, THUMBNAIL).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def without_padding(image: np.ndarray) -> np.ndarray:
    """Cuts off rows and columns at the edges of (H, W) that hold nothing but the first pixel's value.

    Bars that padding to a square has left make the thumbnails of different slices alike.
    """
    shown = image != image[0, 0]
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image


# On the doctor slices of COVID-SemiSeg, pairs above this correlation are neighbouring slices of one scan
# (seen by eye). A low bar is the safe side: it can only make groups larger.
SAME_SCAN_CORRELATION = 0.85
# Measured on upright slices: thumbnails of different patients correlate by 0.934 (COVID-SemiSeg) and 0.943
# (eight chest CTs in HU) at most, those of a slice at another size and window (cut by up to 30 % on the
# bright side, 20 % on the dark side) by 0.938 at least, and 99 % of them above 0.96.
SAME_SLICE_CORRELATION = 0.95
MOST_OF_ALL = 0.5
"""A group with more than this share of all pictures has joined different scans through chains."""
BLOCK = 1024  # pictures compared with all others at a time


def same_slice_groups(samples: Sequence[Sample]) -> list[int]:
    """Returns a group number for each slice; copies at another size, window or padding share one.

    Raises:
        UserError: a file is unreadable.
    """
    if not samples:
        return []
    thumbnails = [thumbnail(without_padding(_upright(sample.image))) for sample in samples]
    return connected(_alike(np.stack(thumbnails), SAME_SLICE_CORRELATION), len(samples))


def near_duplicate_groups(samples: Sequence[Sample], threshold: float = SAME_SCAN_CORRELATION) -> list[int]:
    """Returns a group number for each slice; slices whose thumbnails correlate by ``threshold`` share one.

    Groups are joined through chains (single linkage) and numbered in the order of ``samples``. Where chains
    join most of a larger set, as they do with whole chest CTs, groups are made as in `scan_groups`.

    Raises:
        UserError: a file is unreadable.
    """
    if not samples:
        return []
    thumbnails = _thumbnails(samples)
    groups = connected(_alike(thumbnails, threshold), len(samples))
    largest = np.bincount(groups).max()
    return groups if largest <= MOST_OF_ALL * len(samples) else _in_order(thumbnails)


def scan_groups(samples: Sequence[Sample]) -> list[int]:
    """Returns a group number for each of the slices, which are in the order of their scans.

    Similar neighbours share a group, and so do copies. On eight chest CTs of 1 to 8 mm neighbouring slices
    correlate by at least 0.953, the last of one scan and the first of the next by at most 0.724.

    Raises:
        UserError: a file is unreadable.
    """
    return _in_order(_thumbnails(samples)) if samples else []


def _thumbnails(samples: Sequence[Sample]) -> np.ndarray:
    return np.stack([thumbnail(_upright(sample.image)) for sample in samples])  # (N, T * T)


def _upright(path: Path) -> np.ndarray:
    """Reads the only slice of a file, (H, W), in any range."""
    if not is_volume(path):
        return read_picture(path)[0]
    volume = open_volume(path)
    return to_unit(volume.array.squeeze(), WINDOWS["lung"], volume.is_hu, volume.source_range)


def _in_order(thumbnails: np.ndarray) -> list[int]:
    first = np.flatnonzero((thumbnails[:-1] * thumbnails[1:]).sum(1) >= SAME_SCAN_CORRELATION)
    neighbours = np.stack([first, first + 1], axis=1)  # (P, 2)
    same = _alike(thumbnails, SAME_SLICE_CORRELATION)
    return connected(np.concatenate([neighbours, same]), len(thumbnails))


def _alike(thumbnails: np.ndarray, threshold: float) -> np.ndarray:
    """Returns index pairs (P, 2) that correlate by at least ``threshold``, with i = j among them."""
    pairs = []
    for start in range(0, len(thumbnails), BLOCK):
        alike = np.argwhere(thumbnails[start : start + BLOCK] @ thumbnails.T >= threshold)
        alike[:, 0] += start
        pairs.append(alike)
    return np.concatenate(pairs)


def connected(pairs: np.ndarray, count: int) -> list[int]:
    """Returns a group number for each of ``count`` things; pairs (P, 2) and chains of pairs share one.

    Groups are numbered in the order of the things.

    Example:
        >>> connected(np.array([[0, 3], [3, 1]]), 4)
        [0, 0, 1, 0]
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(links, directed=False)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]
