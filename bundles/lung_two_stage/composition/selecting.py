"""The combinations whose nodules lie farthest from the edge of the lung, of any number, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def farthest(margins: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the ``count`` largest margins, ascending; of equal margins the first ones.

    Args:
        margins: (M,) in mm.
        count: 0 to M.
    """
    if count >= len(margins):
        return np.arange(len(margins))
    if count == 0:
        return np.empty(0, np.int64)
    limit = np.partition(margins, len(margins) - count)[len(margins) - count]
    above = np.flatnonzero(margins > limit)
    equal = np.flatnonzero(margins == limit)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


class Farthest:
    """Takes candidates piece by piece, in order, and keeps the ``count`` best.

    Holds at most twice as many as wanted (and one piece).

    Args:
        count: how many to keep.
        kind: numpy type of a candidate, with a field ``margin``.
    """

    def __init__(self, count: int, kind: np.dtype) -> None:
        self.count = count
        self._pieces = [np.empty(0, kind)]

    def add(self, candidates: np.ndarray) -> None:
        """Takes the next piece; impossible ones (margin -inf) are passed over."""
        self._pieces.append(candidates[np.isfinite(candidates["margin"])])
        if sum(map(len, self._pieces)) > 2 * self.count:
            self._pieces = [self.best()]

    def best(self) -> np.ndarray:
        """The best so far, in the order they came; fewer than ``count`` where there were no more."""
        everything = np.concatenate(self._pieces)
        return everything[farthest(everything["margin"], self.count)]
