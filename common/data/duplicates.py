"""Groups slices without a patient id by what they show: near-identical slices are one patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.data.pictures import read_picture
from common.data.thumbnails import thumbnail

# On the doctor slices of COVID-SemiSeg, pairs above this correlation are neighbouring slices of one scan
# (seen by eye). A low bar is the safe side: it can only make groups larger.
SAME_SCAN_CORRELATION = 0.85
BLOCK = 1024  # pictures compared with all others at a time


def near_duplicate_groups(paths: Sequence[Path], threshold: float = SAME_SCAN_CORRELATION) -> list[int]:
    """A group number for each picture: those whose 32 x 32 thumbnails correlate by ``threshold`` share one.

    Groups are joined through chains (single linkage) and numbered in the order of ``paths``.

    Raises:
        UserError: a picture is unreadable.
    """
    if not paths:
        return []
    thumbnails = np.stack([thumbnail(read_picture(path)[0]) for path in paths])  # (N, T * T)
    pairs = []
    for start in range(0, len(thumbnails), BLOCK):
        alike = np.argwhere(thumbnails[start : start + BLOCK] @ thumbnails.T >= threshold)  # (P, 2)
        alike[:, 0] += start
        pairs.append(alike)
    return connected(np.concatenate(pairs), len(paths))


def connected(pairs: np.ndarray, count: int) -> list[int]:
    """A group number for each of ``count`` things: pairs (P, 2) share one, also through others.

    Groups are numbered in the order of the things.
    """
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(links, directed=False)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]
