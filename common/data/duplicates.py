"""Groups slices without a patient id by what they show: near-identical slices are one patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components

from common.data.pictures import read_picture
from common.data.thumbnails import thumbnail

# On the doctor slices of COVID-SemiSeg, pairs above this correlation are neighbouring slices of one scan
# (seen by eye). A low bar is the safe side: it can only make groups larger.
SAME_SCAN_CORRELATION = 0.85


def near_duplicate_groups(paths: Sequence[Path], threshold: float = SAME_SCAN_CORRELATION) -> list[int]:
    """A group number for each picture: those whose 32 x 32 thumbnails correlate by ``threshold`` share one.

    Groups are joined through chains (single linkage) and numbered in the order of ``paths``.

    Raises:
        UserError: a picture is unreadable.
    """
    if not paths:
        return []
    thumbnails = np.stack([thumbnail(read_picture(path)[0]) for path in paths])  # (N, T * T)
    alike = thumbnails @ thumbnails.T >= threshold
    labels = connected_components(alike, directed=False)[1]
    order: dict[int, int] = {}
    return [order.setdefault(int(label), len(order)) for label in labels]
