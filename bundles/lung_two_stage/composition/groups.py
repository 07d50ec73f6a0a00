"""Which nodules appear together, and which way round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.samples import ORIENTATIONS
from common.random import generator

NOBODY = -1
TURNS = tuple(ORIENTATIONS)
"""Names of the eight flips and rotations, by number."""


@dataclass(frozen=True)
class Groups:
    """G groups of 1 to k different nodules.

    Args:
        members: (G, k) int32 numbers of nodules, `NOBODY` in the places of smaller groups.
        turns: (G, k) uint8, each member's flip or rotation: a place in `TURNS`.
    """

    members: NDArray[np.int32]
    turns: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.members)

    def first(self, count: int) -> Groups:
        """The first groups alone."""
        return Groups(self.members[:count], self.turns[:count])


def draw_groups(seed: int, count: int, usable: NDArray[np.int64], most: int) -> Groups:
    """Draws ``count`` groups; the first ones are the same whatever their number.

    Args:
        usable: numbers of the nodules to choose from.
        most: k, most members of a group; fewer where there are fewer nodules.
    """
    most = min(most, len(usable))
    drawn = generator(seed, "groups").random((count, 1 + 2 * most))
    sizes = 1 + (drawn[:, :1] * most).astype(np.int64)  # (G, 1)
    members = usable[_different(drawn[:, 1 : 1 + most], len(usable))]
    members[np.arange(most) >= sizes] = NOBODY
    turns = (drawn[:, 1 + most :] * len(TURNS)).astype(np.uint8)
    return Groups(members.astype(np.int32), turns)


def _different(drawn: NDArray[np.float64], among: int) -> NDArray[np.int64]:
    """(G, k) numbers in [0, 1) to k different whole numbers below ``among`` in each row."""
    chosen = np.empty(drawn.shape, np.int64)
    for place in range(drawn.shape[1]):
        value = (drawn[:, place] * (among - place)).astype(np.int64)
        for earlier in np.sort(chosen[:, :place], axis=1).T:  # makes room for each number taken
            value += value >= earlier
        chosen[:, place] = value
    return chosen
