"""All pairs of feature vectors, block by block: as many as one likes in little memory.

Products are computed in float32, which is fast. What they decide is decided by bounds that hold for the exact
distances; the few pairs for which the bounds do not settle it are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError

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


class PairBlocks:
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


Visit = Callable[[PairBlocks, Block], None]


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
    """Centred vectors (N, D), their squared lengths and what `PairBlocks.originals` adds (N,) float64."""
    centred = torch.empty(vectors.shape, dtype=dtype)
    squares, offsets = torch.empty(2, len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors), BLOCK):  # no float64 copy of all
        here = slice(start, start + BLOCK)
        part = vectors[here].double() - centre
        centred[here], squares[here] = part, part.square().sum(1)
        offsets[here] = part @ centre + centre @ centre / 2
    return centred, squares, offsets


SPARE = 1  # candidates beyond k; where it is hardly farther than the k-th, float64 decides
SEARCHED = 64  # rows that are searched in float64 at once: matrices of 50 MB for 100 000 references
CONVERTED = 256  # references that are converted to float64 at once


def find_nearest(queries: Tensor, references: Tensor | None = None, k: int = 1) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest references of each query, nearest first.

    Args:
        queries: (N, D).
        references: (M, D); None for the other queries.
        k: at least 1.
    Returns:
        Distances (N, k) float64, exact, and indices (N, k).
    Raises:
        UserError: fewer than ``k`` references.
    """
    squared, indices = find_nearest_squared(queries, references, k)
    return squared.sqrt(), indices


def find_nearest_squared(
    queries: Tensor,
    references: Tensor | None = None,
    k: int = 1,
    also: Visit | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `find_nearest`, with squared distances: those of one pair are equal wherever it comes up.

    Candidates are found in float32; the distances among them and their order are those of float64.

    Args:
        queries, references, k: as `find_nearest`.
        also: called with every block of pairs, for whoever needs the same pairs.
        owners: of queries and references, see `PairBlocks`: neighbours of one owner do not count.
    """
    pairs = PairBlocks(queries, references, owners=owners)
    there = pairs.partners()
    if there < k:
        raise UserError(f"{k} nearest images wanted, but there are {there}; bring more images or lower k")
    candidates = _Candidates(len(queries), min(k + SPARE, there))
    for block in pairs:
        candidates.add(pairs, block)
        if also is not None:
            also(pairs, block)
    squared, indices = _ordered(pairs, torch.arange(len(queries)), candidates.indices, k)
    if candidates.count < there:
        unsure = (squared[:, -1] > candidates.lower[:, -1]).nonzero()[:, 0]
        for rows in unsure.split(SEARCHED):
            squared[rows], indices[rows] = _searched(pairs, rows, k)
    return squared, indices


class _Candidates:
    """The nearest references of each query so far, by lower bounds of their squared distances.

    All others are at least as far as the last one's bound.
    """

    def __init__(self, queries: int, count: int) -> None:
        self.count = count
        self.lower = torch.full((queries, count), torch.inf)
        self.indices = torch.zeros((queries, count), dtype=torch.int64)

    def add(self, pairs: PairBlocks, block: Block) -> None:
        lower = pairs.lower(block)
        self._add(block.rows, block.columns.start, lower)
        if block.mirrored:
            self._add(block.columns, block.rows.start, lower.T)

    def _add(self, rows: slice, offset: int, lower: Tensor) -> None:
        hit = (lower.amin(1) < self.lower[rows, -1]).nonzero()[:, 0]  # fewer with every block
        few, chosen = min(self.count, lower.shape[1]), lower.index_select(0, hit)
        values, places = chosen.topk(few, dim=1, largest=False, sorted=False)
        hit = hit + rows.start
        values = torch.cat([self.lower[hit], values], dim=1)  # (hit rows, up to 2 count)
        indices = torch.cat([self.indices[hit], places + offset], dim=1)
        self.lower[hit], kept = values.topk(self.count, dim=1, largest=False)
        self.indices[hit] = indices.gather(1, kept)


def _ordered(pairs: PairBlocks, rows: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of the candidates (R, C) of ``rows`` (R,) the ``k`` nearest: squared distances and indices (R, k)."""
    squared = pairs.exact(rows.repeat_interleave(candidates.shape[1]), candidates.flatten())
    squared, order = squared.view(candidates.shape).sort(dim=1, stable=True)  # (R * C,) -> (R, C)
    return squared[:, :k], candidates.gather(1, order)[:, :k]


def _searched(pairs: PairBlocks, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of ``rows`` (R,) among all, in float64: where float32 cannot tell."""
    queries = pairs.first[rows].double() - pairs.centre
    parts = [queries @ (part.double() - pairs.centre).T for part in pairs.second.split(CONVERTED)]
    squared = pairs.squares[1] - 2 * torch.cat(parts, dim=1)  # (R, M), short of a constant in each row
    if pairs.owners is not None:
        squared.masked_fill_(pairs.owners[0][rows, None] == pairs.owners[1], torch.inf)
    elif pairs.same:
        squared.scatter_(1, rows[:, None], torch.inf)
    few = min(k + SPARE, pairs.partners())
    return _ordered(pairs, rows, squared.topk(few, dim=1, largest=False).indices, k)
