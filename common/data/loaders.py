"""The order of samples, an endless seeded sequence of batches that can start anywhere; and loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from common.errors import UserError
from common.rng import make_rng


@dataclass(frozen=True)
class SampleIndex:
    """A sample's index and the epoch it is loaded in; its random transforms are seeded from both.

    A dataset that is indexed by a plain int gives the sample without random transforms.
    """

    index: int
    epoch: int


class InfiniteBatchSampler(Sampler[list[SampleIndex]]):
    """Yields batches of `SampleIndex` without end, from batch number ``position`` on.

    Batch number p depends on (seed, p) alone, so a resumed run goes on with the batches it would have had.
    Every epoch is a new permutation of all samples; its last, incomplete batch is dropped, since batch
    statistics would differ. Processes take disjoint parts of each batch.

    Args:
        length: number of samples.
        batch_size: samples per batch and process.
        seed: the run's seed.
        rank, ranks: this process and the number of processes.
        shuffle: off for a fixed order.
    Raises:
        UserError: fewer samples than ``batch_size * ranks``.

    Example:
        >>> sampler = InfiniteBatchSampler(5, batch_size=2, shuffle=False)
        >>> sampler.batches_per_epoch
        2
        >>> sampler.batch(2)
        [SampleIndex(index=0, epoch=1), SampleIndex(index=1, epoch=1)]
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

    def batch(self, position: int) -> list[SampleIndex]:
        """The samples of batch number ``position`` (counted from the run's start) for this rank."""
        epoch, within = divmod(position, self.batches_per_epoch)
        order = self._order(epoch)
        start = (within * self.ranks + self.rank) * self.batch_size
        return [SampleIndex(int(index), epoch) for index in order[start : start + self.batch_size]]

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        position = self.position
        while True:
            yield self.batch(position)
            position += 1

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.length)
        return make_rng(self.seed, "order", epoch).permutation(self.length)


class Items(Protocol):
    """A dataset: records by index, a number or a `SampleIndex`."""

    def __len__(self) -> int: ...

    def __getitem__(self, visit: Any) -> Mapping[str, Any]: ...


def make_loader(
    dataset: Dataset[dict[str, Any]],
    stream: InfiniteBatchSampler,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[dict[str, Any]]:
    """An endless loader whose batches are those of ``stream``; the workers draw nothing themselves.

    A dataset with a ``collate`` of its own brings its batches together itself.
    """
    return DataLoader(
        dataset,
        batch_sampler=stream,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        collate_fn=getattr(dataset, "collate", None),
    )


def ordered_loader(
    dataset: Dataset[dict[str, Any]], batch_size: int, num_workers: int = 0
) -> DataLoader[dict[str, Any]]:
    """All of a dataset once, in order and unaugmented, for validation."""
    return DataLoader(
        dataset, batch_size, num_workers=num_workers, collate_fn=getattr(dataset, "collate", None)
    )


def example_batch(dataset: Items, count: int) -> dict[str, Any]:
    """A batch of ``count`` pairs spread evenly over the dataset (all of a smaller one), always the same."""
    indices = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return dict(default_collate([dataset[int(index)] for index in indices]))
