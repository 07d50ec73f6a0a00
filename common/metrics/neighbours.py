"""Nearest neighbours among feature vectors, exact, without the matrix of all distances."""

from __future__ import annotations

import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.pairs import Block, Pairs, Visit

SPARE = 1  # candidates beyond k; where it is hardly farther than the k-th, float64 decides
SEARCHED = 64  # rows that are searched in float64 at once: matrices of 50 MB for 100 000 references
CONVERTED = 256  # references that are converted to float64 at once


def nearest(queries: Tensor, references: Tensor | None = None, k: int = 1) -> tuple[Tensor, Tensor]:
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
    squared, indices = nearest_squared(queries, references, k)
    return squared.sqrt(), indices


def nearest_squared(
    queries: Tensor,
    references: Tensor | None = None,
    k: int = 1,
    also: Visit | None = None,
    owners: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `nearest`, with squared distances: those of one pair are equal wherever it comes up.

    Candidates are found in float32; the distances among them and their order are those of float64.

    Args:
        queries, references, k: as `nearest`.
        also: called with every block of pairs, for whoever needs the same pairs.
        owners: of queries and references, see `Pairs`: neighbours of one owner do not count.
    """
    pairs = Pairs(queries, references, owners=owners)
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

    def add(self, pairs: Pairs, block: Block) -> None:
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


def _ordered(pairs: Pairs, rows: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of the candidates (R, C) of ``rows`` (R,) the ``k`` nearest: squared distances and indices (R, k)."""
    squared = pairs.exact(rows.repeat_interleave(candidates.shape[1]), candidates.flatten())
    squared, order = squared.view(candidates.shape).sort(dim=1, stable=True)  # (R * C,) -> (R, C)
    return squared[:, :k], candidates.gather(1, order)[:, :k]


def _searched(pairs: Pairs, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
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
