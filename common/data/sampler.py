"""The order of the samples: an endless, seeded stream of batches that can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from common.errors import UserError
from common.rng import generator


class Draw(NamedTuple):
    """One visit of one sample: all randomness of the visit is drawn from (seed, epoch, sample)."""

    epoch: int
    sample: int


class BatchStream(Sampler[list[Draw]]):
    """A batch sampler without an end: batch ``p`` depends on (seed, p) alone; it starts at ``position``.

    Every epoch is a fresh permutation of ``length`` samples; ranks take disjoint slices of each batch, the
    last incomplete batch of an epoch is dropped (it would give batch statistics another meaning).

    Args:
        length: number of samples.
        batch_size: samples per batch and rank.
        seed: the run's seed.
        rank, ranks: this process and the number of processes.
        shuffle: off for a fixed order.
    Raises:
        UserError: fewer samples than ``batch_size * ranks``.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int = 0, rank: int = 0, ranks: int = 1, shuffle: bool = True
    ) -> None:
        if length < batch_size * ranks:
            raise UserError(
                f"{length} training samples are fewer than one batch of {batch_size} x {ranks} processes; "
                "lower --batch_size or bring more data"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.ranks, self.shuffle = rank, ranks, shuffle
        self.position = 0

    @property
    def batches_per_epoch(self) -> int:
        """Complete batches in one pass over the samples."""
        return self.length // (self.batch_size * self.ranks)

    def batch(self, position: int) -> list[Draw]:
        """The draws of batch number ``position`` (counted from the run's start) for this rank."""
        epoch, within = divmod(position, self.batches_per_epoch)
        order = self._order(epoch)
        start = (within * self.ranks + self.rank) * self.batch_size
        return [Draw(epoch, int(sample)) for sample in order[start : start + self.batch_size]]

    def __iter__(self) -> Iterator[list[Draw]]:
        position = self.position
        while True:
            yield self.batch(position)
            position += 1

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.length)
        return generator(self.seed, "order", epoch).permutation(self.length)
