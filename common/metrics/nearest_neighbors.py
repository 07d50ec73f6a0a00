"""Nearest neighbours, and all pairs of feature vectors in blocks that need little memory.

Products are computed in float32. Bounds on their rounding error decide which distances are certain; the few
pairs that they leave open are computed in float64, so every result is that of float64. This takes half the
time of `torch.cdist` in float64; `torch.cdist` in float32 would be as fast, but it confuses copies of an
image with its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError

BLOCK = 512
"""Rows and columns of a block: 1 MB in float32, which stays in the processor's cache."""
EXACT_VALUES = 2**17
"""Values that are converted to float64 at once: 1 MB."""
SEARCH_ROWS = 64
"""Queries that are compared with all references in float64 at once: 50 MB for 100 000 references."""
SPARE = 1
"""Candidates beyond k; the k-th is certain where the last candidate's bound is clearly larger."""


@dataclass(frozen=True)
class Block:
    """Some rows of the first set with some rows ("columns") of the second.

    Attributes:
        rows, columns: which ones.
        diagonal: whether its diagonal pairs vectors with themselves.
        mirrored: whether it also stands for its mirror image (columns with rows).
        same_owner: (R, C) True where both vectors belong to one patient; None where no two do.
    """

    rows: slice
    columns: slice
    diagonal: bool
    mirrored: bool
    same_owner: Tensor | None = None

    def fill_excluded(self, values: Tensor, value: float) -> Tensor:
        """Sets ``values`` (R, C) to ``value`` where a vector meets itself or one of the same owner."""
        if self.same_owner is not None:
            return values.masked_fill_(self.same_owner, value)
        return values.fill_diagonal_(value) if self.diagonal else values


class PairBlocks:
    """Iterates over the pairs of two sets of vectors, or of one set with itself (upper triangle only).

    Vectors are centred on their common mean, which leaves distances as they are and makes float32 more exact.

    Args:
        first: (N, D).
        second: (M, D); None for the pairs within ``first``.
        dtype: of the products.
        owners: numbers (N,) and (M,) int64 of `number_owners`; vectors of the same owner form no pair. None
            if every vector has its own owner.
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
        self.dimension, self.dtype, self.owners = int(first.shape[1]), dtype, owners
        self._memory: dict[str, Tensor] = {}
        total = self.first.sum(0, dtype=torch.float64) + self.second.sum(0, dtype=torch.float64)
        self.centre = total / max(len(self.first) + len(self.second), 1)  # (D,)
        left = _centred(self.first, self.centre, dtype)
        right = left if self.same else _centred(self.second, self.centre, dtype)
        self.centred, self.squares, self.offsets = zip(left, right, strict=True)
        # A product of D terms is wrong by at most D u |x| |y| <= D u (|x|^2 + |y|^2) / 2, u the rounding unit
        # (Higham 2002, section 3.1); a few more roundings for centring and adding up.
        self.error = (self.dimension + 16) * torch.finfo(dtype).eps / 2

    def __iter__(self) -> Iterator[Block]:
        """Yields every block once; its products are overwritten by the next."""
        first, second = self.centred
        for top in range(0, len(first), BLOCK):
            rows = slice(top, min(top + BLOCK, len(first)))
            for left in range(top if self.same else 0, len(second), BLOCK):
                columns = slice(left, min(left + BLOCK, len(second)))
                diagonal, mirrored = self.same and left == top, self.same and left > top
                block = Block(rows, columns, diagonal, mirrored, self._same_owner(rows, columns))
                torch.mm(first[rows], second[columns].T, out=self.buffer("products", block))  # (R, C)
                yield block

    def buffer(self, name: str, block: Block) -> Tensor:
        """A matrix of the block's size (R, C) in memory that all blocks share; allocating is slow."""
        if name not in self._memory:
            self._memory[name] = torch.empty(BLOCK * BLOCK, dtype=self.dtype)
        rows, columns = (part.stop - part.start for part in (block.rows, block.columns))
        return self._memory[name][: rows * columns].view(rows, columns)

    def products(self, block: Block) -> Tensor:
        """Products (R, C) of the uncentred vectors: x . y = x' . y' + (x' + y') . m + m . m."""
        rows, columns = self._sides(self.offsets, block)
        centred = self.buffer("products", block)
        return torch.add(centred, columns, out=self.buffer("uncentred", block)).add_(rows)

    def lower_bounds(self, block: Block) -> Tensor:
        """Lower bounds (R, C) of squared distances, at most `slack` too low; infinite for excluded pairs."""
        rows, columns = (part * (1 - self.error) for part in self._sides(self.squares, block))
        bounds = self.buffer("bounds", block)
        torch.add(columns, self.buffer("products", block), alpha=-2, out=bounds).add_(rows)
        return block.fill_excluded(bounds, torch.inf)

    def slack(self, block: Block) -> float:
        """How far the exact squared distances of a block may lie above `lower_bounds`."""
        return 2 * self.error * sum(float(part.max()) for part in self._sides(self.squares, block))

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Squared distances (P,) float64 between the vectors with indices ``rows`` and ``columns`` (P,)."""
        size = max(EXACT_VALUES // max(self.dimension, 1), 1)
        parts = zip(rows.split(size), columns.split(size), strict=True)
        return torch.cat([squared_distances(self.first[here], self.second[there]) for here, there in parts])

    def min_partners(self) -> int:
        """The smallest number of partners that a vector of the first set has."""
        total = len(self.second)
        if self.owners is None or not total:
            return total - self.same
        first, second = self.owners
        names, counts = second.unique(return_counts=True)
        own = counts[torch.isin(names, first)]
        return total - int(own.max()) if len(own) else total

    def _same_owner(self, rows: slice, columns: slice) -> Tensor | None:
        if self.owners is None:
            return None
        first, second = self.owners[0][rows], self.owners[1][columns]
        if not torch.isin(first.unique(), second.unique()).any():
            return None
        return first[:, None] == second  # (R, C)

    def _sides(self, each: tuple[Tensor, Tensor], block: Block) -> tuple[Tensor, Tensor]:
        """The values of the block's rows (R, 1) and columns (C,)."""
        return each[0][block.rows, None].to(self.dtype), each[1][block.columns].to(self.dtype)


def number_owners(
    first: Sequence[str] | None, second: Sequence[str] | None, lengths: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Patient numbers (N,) and (M,) int64 of two sets of images, equal for the same patient in either set.

    Args:
        first, second: one patient id per image; None for images without patients, which are all different.
        lengths: N and M.
    """
    numbers: dict[str, int] = {}
    result: list[Tensor] = []
    for patients, length in zip((first, second), lengths, strict=True):
        ids = [f"\0{len(result)} {index}" for index in range(length)] if patients is None else patients
        result.append(
            torch.tensor([numbers.setdefault(name, len(numbers)) for name in ids], dtype=torch.int64)
        )
    return result[0], result[1]


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Squared distances of corresponding rows (P, D) -> (P,) float64; exactly 0 for equal rows.

    Example:
        >>> squared_distances(torch.tensor([[1.0, 5.0]]), torch.tensor([[4.0, 1.0]])).tolist()
        [25.0]
    """
    return (first.double() - second.double()).square().sum(1)


def find_nearest(queries: Tensor, references: Tensor | None = None, k: int = 1) -> tuple[Tensor, Tensor]:
    """Finds the ``k`` nearest references of each query, nearest first.

    Args:
        queries: (N, D).
        references: (M, D); None for the other queries.
        k: at least 1.
    Returns:
        Distances (N, k) float64 and indices (N, k).
    Raises:
        UserError: fewer than ``k`` references.

    Example:
        >>> references = torch.tensor([[9.0], [2.0], [-1.0]])
        >>> distances, indices = find_nearest(torch.tensor([[0.0]]), references, k=2)
        >>> distances.tolist(), indices.tolist()
        ([[1.0, 2.0]], [[2, 1]])
    """
    squared, indices = find_nearest_squared(queries, references, k)
    return squared.sqrt(), indices


Visit = Callable[[PairBlocks, Block], None]


def find_nearest_squared(
    queries: Tensor,
    references: Tensor | None = None,
    k: int = 1,
    visit: Visit | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Like `find_nearest`, with squared distances, which are the same for a pair wherever it is met.

    Args:
        queries, references, k: see `find_nearest`.
        visit: called with every block of pairs, so that others can use the same products.
        owners: of queries and references, see `PairBlocks`.
    """
    pairs = PairBlocks(queries, references, owners=owners)
    available = pairs.min_partners()
    if available < k:
        raise UserError(f"{k} nearest images wanted, but there are {available}; bring more images or lower k")
    candidates = _Candidates(len(queries), min(k + SPARE, available))
    for block in pairs:
        candidates.add(pairs, block)
        if visit is not None:
            visit(pairs, block)
    squared, indices = _sorted_exactly(pairs, torch.arange(len(queries)), candidates.indices, k)
    if candidates.count < available:
        uncertain = (squared[:, -1] > candidates.bounds[:, -1]).nonzero()[:, 0]
        for rows in uncertain.split(SEARCH_ROWS):
            squared[rows], indices[rows] = _search_exactly(pairs, rows, k)
    return squared, indices


class _Candidates:
    """The ``count`` references of each query with the smallest lower bounds of their squared distances."""

    def __init__(self, queries: int, count: int) -> None:
        self.count = count
        self.bounds = torch.full((queries, count), torch.inf)
        self.indices = torch.zeros((queries, count), dtype=torch.int64)

    def add(self, pairs: PairBlocks, block: Block) -> None:
        bounds = pairs.lower_bounds(block)
        self._add(block.rows, block.columns.start, bounds)
        if block.mirrored:
            self._add(block.columns, block.rows.start, bounds.T)

    def _add(self, rows: slice, offset: int, bounds: Tensor) -> None:
        hit = (bounds.amin(1) < self.bounds[rows, -1]).nonzero()[:, 0]  # fewer with every block
        few = min(self.count, bounds.shape[1])
        values, columns = bounds.index_select(0, hit).topk(few, dim=1, largest=False, sorted=False)
        hit = hit + rows.start
        values = torch.cat([self.bounds[hit], values], dim=1)  # (hit rows, up to 2 count)
        indices = torch.cat([self.indices[hit], columns + offset], dim=1)
        self.bounds[hit], kept = values.topk(self.count, dim=1, largest=False)
        self.indices[hit] = indices.gather(1, kept)


def _sorted_exactly(pairs: PairBlocks, rows: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of the candidates (R, C) of ``rows`` (R,): squared distances and indices (R, k)."""
    squared = pairs.exact(rows.repeat_interleave(candidates.shape[1]), candidates.flatten())
    squared, order = squared.view(candidates.shape).sort(dim=1, stable=True)  # (R * C,) -> (R, C)
    return squared[:, :k], candidates.gather(1, order)[:, :k]


def _search_exactly(pairs: PairBlocks, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of ``rows`` (R,) among all references, in float64."""
    queries = pairs.first[rows].double() - pairs.centre
    parts = [queries @ (part.double() - pairs.centre).T for part in pairs.second.split(BLOCK)]
    squared = pairs.squares[1] - 2 * torch.cat(parts, dim=1)  # (R, M), short of a constant in each row
    if pairs.owners is not None:
        squared.masked_fill_(pairs.owners[0][rows, None] == pairs.owners[1], torch.inf)
    elif pairs.same:
        squared.scatter_(1, rows[:, None], torch.inf)
    few = min(k + SPARE, pairs.min_partners())
    return _sorted_exactly(pairs, rows, squared.topk(few, dim=1, largest=False).indices, k)


def _centred(vectors: Tensor, centre: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Centred vectors (N, D), their squared lengths and what `PairBlocks.products` adds (N,) float64."""
    centred = torch.empty(vectors.shape, dtype=dtype)
    squares, offsets = torch.empty(2, len(vectors), dtype=torch.float64)
    for start in range(0, len(vectors), BLOCK):  # no float64 copy of all
        here = slice(start, start + BLOCK)
        part = vectors[here].double() - centre
        centred[here], squares[here] = part, part.square().sum(1)
        offsets[here] = part @ centre + centre @ centre / 2
    return centred, squares, offsets
