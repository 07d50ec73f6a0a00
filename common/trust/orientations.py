"""Nearest images where a flip, a quarter turn or a small shift does not count: a moved copy is a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.samples import ORIENTATIONS
from common.metrics.neighbours import nearest

Vectors = Callable[[Tensor], Tensor]
"""Turns images (N, 1, S, S) into vectors (N, D)."""
WAYS = tuple(ORIENTATIONS)
Shift = tuple[int, int]
"""Pixels down and across."""
STAY: tuple[Shift, ...] = ((0, 0),)


def shifts_up_to(reach: int) -> tuple[Shift, ...]:
    """All shifts by whole pixels of at most ``reach`` each way, the shortest first."""
    steps = range(-reach, reach + 1)
    return tuple(
        sorted(((down, across) for down in steps for across in steps), key=lambda s: abs(s[0]) + abs(s[1]))
    )


@dataclass(frozen=True)
class Found:
    """Of each query the nearest reference.

    Attributes:
        distances: (N,) float64.
        indices: (N,) of the references.
        ways: (N,) places in `WAYS`: how the turned side was turned.
    """

    distances: Tensor
    indices: Tensor
    ways: Tensor


def turned(images: Tensor, way: str) -> Tensor:
    """Square images (N, 1, S, S), all turned one of the eight `WAYS`."""
    array = ORIENTATIONS[way](images.permute(2, 3, 0, 1).numpy())  # (S, S, N, 1)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 3, 0, 1)))


def shifted(images: Tensor, shift: Shift) -> Tensor:
    """Images (N, 1, H, W) moved; what comes in from beyond the border is the border's pixel."""
    down, across = shift
    if not down and not across:
        return images
    reach, (height, width) = max(abs(down), abs(across)), images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    top, left = reach - down, reach - across
    return padded[..., top : top + height, left : left + width]


def all_moved(
    images: Tensor, vectors: Vectors, shifts: Sequence[Shift] = STAY
) -> Iterator[tuple[int, Tensor]]:
    """Of the images turned each of the `WAYS` and then shifted: the way's place and the vectors (N, D)."""
    for place, way in enumerate(WAYS):
        upright = turned(images, way)
        for shift in shifts:
            yield place, vectors(shifted(upright, shift))


class NearestOfAll:
    """Gathers the nearest references over the ways that one of the two sides is moved.

    One way is in memory at a time, and of all pairs a block: see `common.metrics.neighbours`.
    """

    def __init__(self) -> None:
        self._found: Found | None = None

    def add(self, queries: Tensor, references: Tensor, way: int) -> None:
        """Vectors (N, D) and (M, D), one side of them turned that one of the `WAYS`."""
        distances, indices = (part[:, 0] for part in nearest(queries, references))
        ways = torch.full_like(indices, way)
        if self._found is None:
            self._found = Found(distances, indices, ways)
            return
        best = self._found
        nearer = distances < best.distances  # of equals the first way
        self._found = Found(
            torch.where(nearer, distances, best.distances),
            torch.where(nearer, indices, best.indices),
            torch.where(nearer, ways, best.ways),
        )

    @property
    def found(self) -> Found:
        """The nearest so far."""
        if self._found is None:
            raise ValueError("nothing was added yet")
        return self._found
