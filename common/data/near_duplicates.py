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
    """(H, W) in any range -> float32 (T * T,) of zero mean and unit norm: a dot product is a correlation."""
    small = resize_image(image, THUMBNAIL, THUMBNAIL).ravel()
    small = small - small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def without_padding(image: np.ndarray) -> np.ndarray:
    """Without rows and columns at the edges of (H, W) that have the first pixel's value throughout.

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
"""Share of all pictures in one group from which on chains have joined different scans."""
BLOCK = 1024  # pictures compared with all others at a time


def same_slice_groups(samples: Sequence[Sample]) -> list[int]:
    """A group number for each slice: those that show the same, at another size, window or padding, share one.

    Raises:
        UserError: a file is unreadable.
    """
    if not samples:
        return []
    thumbnails = [thumbnail(without_padding(_upright(sample.image))) for sample in samples]
    return connected(_alike(np.stack(thumbnails), SAME_SLICE_CORRELATION), len(samples))


def near_duplicate_groups(samples: Sequence[Sample], threshold: float = SAME_SCAN_CORRELATION) -> list[int]:
    """A group number for each slice: those whose 32 x 32 thumbnails correlate by ``threshold`` share one.

    Groups are joined through chains (single linkage) and numbered in the order of ``samples``. Where chains
    join most of a larger set, as whole chest CTs have slices that are like others', see `scan_groups`.

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
    """A group number for each slice, of slices in the order of their scans.

    Neighbours that are alike share one, and so do slices that show the same. On eight chest CTs of 1 to 8 mm
    neighbouring slices correlate by 0.953 at least, the last of one scan and the first of the next by 0.724
    at most.

    Raises:
        UserError: a file is unreadable.
    """
    return _in_order(_thumbnails(samples)) if samples else []


def _thumbnails(samples: Sequence[Sample]) -> np.ndarray:
    return np.stack([thumbnail(_upright(sample.image)) for sample in samples])  # (N, T * T)


def _upright(path: Path) -> np.ndarray:
    """The one slice of a file, (H, W), in any range."""
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
    """Index pairs (P, 2) that correlate by ``threshold`` at least; each with itself, too."""
    pairs = []
    for start in range(0, len(thumbnails), BLOCK):
        alike = np.argwhere(thumbnails[start : start + BLOCK] @ thumbnails.T >= threshold)
        alike[:, 0] += start
        pairs.append(alike)
    return np.concatenate(pairs)


def connected(pairs: np.ndarray, count: int) -> list[int]:
    """A group number for each of ``count`` things: pairs (P, 2) share one, also through others.

    Groups are numbered in the order of the things.
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(links, directed=False)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]
