"""Kernel distance of features (KID; Binkowski et al. 2018): unbiased, so fit for small test sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from common.metrics.pairs import Block, Pairs

KEPT = 4096  # images of both sets together up to which the kernel matrices are kept: 130 MB


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """(x . y / D + 1)^3 for all pairs of rows (Binkowski et al. 2018, section 4): (N, M) float64."""
    return (first.double() @ second.double().T / first.shape[1] + 1) ** 3


def kid(real: Tensor, fake: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy (Gretton et al. 2012, equation 3); may be below 0.

    Args:
        real, fake: features (N, D) and (M, D), at least two rows each.
    """
    return Kernels(real, fake).discrepancy(torch.ones(len(real)), torch.ones(len(fake)))


class Kernels:
    """The kernel values of two sets, in float64, for many weightings of their rows (bootstrap).

    The matrices of small sets are kept. Those of large ones (see `KEPT`) are computed again, block by block,
    for each call: many weightings then belong in one call of `discrepancies`.
    """

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        sets = (real, None), (fake, None), (real, fake)
        self.pairs = [Pairs(first, second, torch.float64) for first, second in sets]
        small = len(real) + len(fake) <= KEPT
        self._kept = [_cloned(kernel_blocks(pairs)) for pairs in self.pairs] if small else None

    def discrepancy(self, real_weights: Tensor, fake_weights: Tensor) -> float:
        """The discrepancy where rows count ``real_weights`` (N,) and ``fake_weights`` (M,) times.

        A row is never paired with its own copy: copies would look like agreement within a set.
        """
        return float(self.discrepancies(real_weights[None], fake_weights[None]))

    def discrepancies(self, real_weights: Tensor, fake_weights: Tensor) -> Tensor:
        """`discrepancy` for R weightings (R, N) and (R, M) at once: (R,) float64."""
        sums = KernelSum(real_weights), KernelSum(fake_weights), KernelSum(real_weights, fake_weights)
        for total, blocks in zip(sums, self._kept or map(kernel_blocks, self.pairs), strict=True):
            for block, values in blocks:
                total.add_values(block, values)
        return discrepancies(*sums)


class KernelSum:
    """The sum of kernel values over pairs of different rows, for R weightings at once, block by block.

    Args:
        first, second: how often each row counts, (R, N) and (R, M); one only for the pairs within a set.
    """

    def __init__(self, first: Tensor, second: Tensor | None = None) -> None:
        self.same = second is None
        self.first = first.double()
        self.second = self.first if second is None else second.double()
        self.total = torch.zeros(len(first), dtype=torch.float64)

    def add(self, pairs: Pairs, block: Block) -> None:
        """Adds a block of pairs."""
        self.add_values(block, kernel_values(pairs, block))

    def add_values(self, block: Block, values: Tensor) -> None:
        """Adds a block's kernel values (rows, columns)."""
        sums = values @ self.second[:, block.columns].T.to(values)  # (rows, R)
        self.total += (1 + block.mirrored) * (sums.double().T * self.first[:, block.rows]).sum(1)

    def mean(self) -> Tensor:
        """The mean over the pairs (R,)."""
        pairs = self.first.sum(1) * self.second.sum(1)
        return self.total / (pairs - self.first.square().sum(1) if self.same else pairs).clamp_min(1)


def discrepancies(within_real: KernelSum, within_fake: KernelSum, between: KernelSum) -> Tensor:
    """The unbiased squared maximum mean discrepancy (R,) from sums over all pairs."""
    return within_real.mean() + within_fake.mean() - 2 * between.mean()


def kernel_blocks(pairs: Pairs) -> Iterator[tuple[Block, Tensor]]:
    """Every block with its `kernel_values`."""
    return ((block, kernel_values(pairs, block)) for block in pairs)


def kernel_values(pairs: Pairs, block: Block) -> Tensor:
    """The kernel values (rows, columns) of the current block, 0 from a row to itself; gone with the next."""
    values = pairs.originals(block).div_(pairs.dimension).add_(1)
    cubes = torch.mul(values, values, out=pairs.scratch("kernel", block)).mul_(values)
    return cubes.fill_diagonal_(0) if block.diagonal else cubes


def _cloned(blocks: Iterable[tuple[Block, Tensor]]) -> list[tuple[Block, Tensor]]:
    return [(block, values.clone()) for block, values in blocks]
