"""Loaders: endless ones for training, ordered ones for validation, and fixed example batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, default_collate

from common.data.datasets import PairDataset, SliceDataset, UnpairedDataset
from common.data.nodule_slices import NoduleSliceDataset
from common.data.sampler import InfiniteBatchSampler


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


def example_batch(
    dataset: PairDataset | SliceDataset | NoduleSliceDataset | UnpairedDataset, count: int
) -> dict[str, Any]:
    """A batch of ``count`` pairs spread evenly over the dataset (all of a smaller one), always the same."""
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return dict(default_collate([dataset[int(place)] for place in places]))
