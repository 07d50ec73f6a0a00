"""Nearest images where a flip or a quarter turn does not count: a turned copy is a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.data.samples import INVERSE_ORIENTATIONS, ORIENTATIONS
from common.metrics.neighbours import nearest

Vectors = Callable[[Tensor], Tensor]
"""Turns images (N, 1, S, S) into vectors (N, D)."""
WAYS = tuple(ORIENTATIONS)


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


def turned_back(image: Tensor, way: str) -> Tensor:
    """The inverse of `turned`, of images (N, 1, S, S)."""
    return turned(image, INVERSE_ORIENTATIONS[way])


def all_turned(images: Tensor, vectors: Vectors) -> Iterator[Tensor]:
    """The vectors (N, D) of the images turned each of the `WAYS`, one after the other."""
    return (vectors(turned(images, way)) for way in WAYS)


class NearestOfAll:
    """Gathers the nearest references over the ways that one of the two sides is turned.

    One way is in memory at a time, and of all pairs a block: see `common.metrics.neighbours`.
    """

    def __init__(self) -> None:
        self._found: Found | None = None
        self._way = 0

    def add(self, queries: Tensor, references: Tensor) -> None:
        """The next of the `WAYS`: vectors (N, D) and (M, D), one side of them turned."""
        distances, indices = (part[:, 0] for part in nearest(queries, references))
        ways = torch.full_like(indices, self._way)
        self._way += 1
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
