"""All pairs of feature vectors, block by block: as many as one likes in little memory.

Products are computed in float32, which is fast. What they decide is decided by bounds that hold for the exact
distances; the few pairs for which the bounds do not settle it are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 512  # rows and columns of a block: 1 MB in float32, which stays in the processor's cache
GATHERED = 2**17  # values gathered at once for exact distances: 1 MB in float64


@dataclass(frozen=True)
class Block:
    """Some rows of the first set with some of the second.

    Attributes:
        rows, columns: which ones.
        diagonal: its diagonal pairs vectors with themselves.
        mirrored: it stands for its mirror image (columns with rows) too.
        akin: (R, C) where both vectors are one patient's; None where no two are.
    """

    rows: slice
    columns: slice
    diagonal: bool
    mirrored: bool
    akin: Tensor | None = None


class Scratch:
    """Memory that blocks share: fresh memory for each step costs more than the arithmetic."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.held: dict[str, Tensor] = {}

    def __call__(self, name: str, like: Block) -> Tensor:
        """A matrix of the block's size (R, C), overwritten when ``name`` is asked for again."""
        if name not in self.held:
            self.held[name] = torch.empty(BLOCK * BLOCK, dtype=self.dtype)
        rows, columns = (part.stop - part.start for part in (like.rows, like.columns))
        return self.held[name][: rows * columns].view(rows, columns)


class Pairs:
    """The pairs of two sets of vectors, or of one set with itself (blocks on and above the diagonal only).

    Vectors are centred on the mean of all: distances stay, and float32 keeps more of them. Pairs of one
    patient's vectors are infinitely apart: they say nothing about patients.

    Args:
        first: (N, D).
        second: (M, D); None for the pairs within ``first``.
        dtype: of the products.
        owners: whose vectors they are (N,) and (M,) int64, see `owners_of`; None for each its own.
    """

    def __init__(
        self,
        first: Tensor,
        second: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        owners: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.same = second is None
        self.first, self.second = first, first if second is None else second
        self.dimension = int(first.shape[1])
        self.owners = owners
        self.scratch = Scratch(dtype)
        total = self.first.sum(0, dtype=torch.float64) + self.second.sum(0, dtype=torch.float64)
        self.centre = total / max(len(self.first) + len(self.second), 1)  # (D,)
        left = _centred(self.first, self.centre, dtype)
        right = left if self.same else _centred(self.second, self.centre, dtype)
        self.centred, self.squares, self.offsets = zip(left, right, strict=True)
        # A product of D terms is wrong by at most D u |x| |y| <= D u (|x|^2 + |y|^2) / 2, u the rounding unit
        # (Higham 2002, section 3.1); a few more roundings for centring and adding up.
        self.error = (self.dimension + 16) * torch.finfo(dtype).eps / 2

    def __iter__(self) -> Iterator[Block]:
        """Every block, once."""
        first, second = self.centred
        for top in range(0, len(first), BLOCK):
            rows = slice(top, min(top + BLOCK, len(first)))
            for left in range(top if self.same else 0, len(second), BLOCK):
                columns = slice(left, min(left + BLOCK, len(second)))
                diagonal, mirrored = self.same and left == top, self.same and left > top
                block = Block(rows, columns, diagonal, mirrored, self._akin(rows, columns))
                torch.mm(first[rows], second[columns].T, out=self.products(block))  # (R, D) x (D, C)
                yield block

    def products(self, block: Block) -> Tensor:
        """The products (R, C) of the centred vectors of the block that was given last."""
        return self.scratch("products", block)

    def originals(self, block: Block) -> Tensor:
        """The products (R, C) of the vectors as they came: x . y = x' . y' + (x' + y') . m + m . m."""
        rows, columns = self._parts(self.offsets, block)
        return torch.add(self.products(block), columns, out=self.scratch("originals", block)).add_(rows)

    def lower(self, block: Block) -> Tensor:
        """Squared distances (R, C) that are nowhere too large, by less than `slack` too small.

        Infinite from a vector to itself and to others of its owner.
        """
        rows, columns = (part * (1 - self.error) for part in self._parts(self.squares, block))
        squared = self.scratch("lower", block)
        torch.add(columns, self.products(block), alpha=-2, out=squared).add_(rows)
        return left_out(squared, block, torch.inf)

    def slack(self, block: Block) -> float:
        """How far the exact squared distances of a block may lie above `lower`."""
        return 2 * self.error * sum(float(part.max()) for part in self._parts(self.squares, block))

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Squared distances (P,) float64 of the pairs of rows ``rows`` (P,) and columns ``columns`` (P,)."""
        size = max(GATHERED // max(self.dimension, 1), 1)
        parts = zip(rows.split(size), columns.split(size), strict=True)
        return torch.cat([squared_distances(self.first[here], self.second[there]) for here, there in parts])

    def partners(self) -> int:
        """How many vectors of others each vector of the first set has at least."""
        total = len(self.second)
        if self.owners is None or not total:
            return total - self.same
        first, second = self.owners
        names, counts = second.unique(return_counts=True)
        own = counts[torch.isin(names, first)]
        return total - int(own.max()) if len(own) else total

    def _akin(self, rows: slice, columns: slice) -> Tensor | None:
        if self.owners is None:
            return None
        first, second = self.owners[0][rows], self.owners[1][columns]
        if not torch.isin(first.unique(), second.unique()).any():
            return None
        return first[:, None] == second  # (R, C)

    def _parts(self, each: tuple[Tensor, Tensor], block: Block) -> tuple[Tensor, Tensor]:
        """What belongs to the rows (R, 1) and to the columns (C,) of a block."""
        dtype = self.scratch.dtype
        return each[0][block.rows, None].to(dtype), each[1][block.columns].to(dtype)


Visit = Callable[[Pairs, Block], None]


def left_out(values: Tensor, block: Block, value: float) -> Tensor:
    """A block's ``values`` (R, C) with ``value`` for pairs that are none: of a vector with its owner's."""
    if block.akin is not None:
        return values.masked_fill_(block.akin, value)
    return values.fill_diagonal_(value) if block.diagonal else values


def owners_of(
    first: Sequence[str] | None, second: Sequence[str] | None, lengths: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Numbers (N,) and (M,) int64, equal for one patient's images in either set.

    Args:
        first, second: one patient an image; None for images that each stand for themselves, as generated
            ones do.
        lengths: N and M.
    """
    names: dict[str, int] = {}
    found: list[Tensor] = []
    for patients, length in zip((first, second), lengths, strict=True):
        own = [f"\0{len(found)} {place}" for place in range(length)] if patients is None else patients
        found.append(torch.tensor([names.setdefault(name, len(names)) for name in own], dtype=torch.int64))
    return found[0], found[1]


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Row by row (P, D) -> (P,) float64, from differences: 0 for equal rows, the same for equal pairs."""
    return (first.double() - second.double()).square().sum(1)


def _centred(vectors: Tensor, centre: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Centred vectors (N, D), their squared lengths and what `Pairs.originals` adds (N,) float64."""
    centred = torch.empty(vectors.shape, dtype=dtype)
    squares, offsets = torch.empty(2, len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors), BLOCK):  # no float64 copy of all
        here = slice(start, start + BLOCK)
        part = vectors[here].double() - centre
        centred[here], squares[here] = part, part.square().sum(1)
        offsets[here] = part @ centre + centre @ centre / 2
    return centred, squares, offsets
