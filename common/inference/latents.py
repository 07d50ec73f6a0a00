"""Noise for generators: sample k of a seed always has the same, however the work is cut."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from common.data.images import ImageDataset
from common.random import generator

COLUMNS = 8
"""Samples in a row of a grid."""


def latents(seed: int, samples: Iterable[int], size: int) -> Tensor:
    """The latents of samples number k of ``seed``: (B, size) float32 from N(0, I), each drawn from (seed, k).

    Args:
        samples: the numbers k.
        size: of a latent.
    """
    drawn = [generator(seed, "latent", int(k)).standard_normal(size, dtype=np.float32) for k in samples]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, size)


def example_noise(dataset: ImageDataset, size: int, rows: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """``latent`` for a grid of ``rows``, and a row of real ``image`` (of fewer: all), always the same."""
    places = np.linspace(0, len(dataset) - 1, min(COLUMNS, len(dataset))).round().astype(int)
    return {
        "latent": latents(seed, range(rows * COLUMNS), size),
        "image": torch.from_numpy(dataset.images[places]),
    }


def class_noise(dataset: ImageDataset, size: int, seed: int = 0) -> dict[str, Tensor]:
    """``latent``, ``class`` and ``image`` for a grid of a row for each class, the same noise in each column.

    Real images repeat where a class has fewer than a row's; a class without any is left out.
    """
    present = [index for index in range(len(dataset.class_names)) if (dataset.classes == index).any()]
    places = [np.resize(np.flatnonzero(dataset.classes == index), COLUMNS) for index in present]
    return {
        "latent": latents(seed, range(COLUMNS), size).repeat(len(present), 1),
        "class": torch.tensor(present).repeat_interleave(COLUMNS),
        "image": torch.from_numpy(dataset.images[np.concatenate(places)]),
    }


def noise_beside(dataset: ImageDataset, size: int, count: int = 64, seed: int = 0) -> dict[str, Tensor]:
    """``latent`` for ``count`` samples, and ``image`` and ``class`` of as many real images (of fewer: all).

    These are spread evenly over the dataset: what the samples are compared with as a set, in its own mixture
    of classes.
    """
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return {
        "latent": latents(seed, range(len(places)), size),
        "class": torch.from_numpy(dataset.classes[places]),
        "image": torch.from_numpy(dataset.images[places]),
    }
