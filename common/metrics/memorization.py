"""Finds copies of training images among generated ones: the nearest training image and how near it is.

A distance is ranked among the distances of real images to their nearest training image: ranks of samples that
are as new as real images are spread evenly over 0 to 1, ranks of copies are near 0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.files import atomic_write
from common.metrics.bootstrap import Resamples, Value
from common.metrics.nearest_neighbors import find_nearest
from common.provenance import SHEET, png_text
from common.visualization import sheet, tiled

COPIED = 0.05  # samples with a lower rank count as copies, as this share of real images does


@dataclass(frozen=True)
class NearestTraining:
    """The nearest training image of each sample.

    Attributes:
        indices: (N,) the nearest training image.
        distances: (N,) float64.
        ranks: (N,) the share of real images that are nearer to a training image.
        usual: the real images' median distance.
    """

    indices: Tensor
    distances: Tensor
    ranks: Tensor
    usual: float

    def copied(self, level: float = COPIED) -> Tensor:
        """(N,) 1 for copies, else 0; the mean is the share of copies, for real images ``level``."""
        return (self.ranks < level).double()

    def share(self, resamples: Resamples, level: float = COPIED) -> Value:
        """The share of copies with its interval."""
        return resamples.share(self.copied(level))

    def ratios(self) -> Tensor:
        """(N,) distances as multiples of the usual distance."""
        return self.distances / max(self.usual, torch.finfo(torch.float64).tiny)


def nearest_training(samples: Tensor, training: Tensor, held_out: Tensor | None = None) -> NearestTraining:
    """Finds the nearest training image of each sample.

    Args:
        samples: features or `common.metrics.features.pattern_vectors` (N, D).
        training: (M, D) of the images as the network saw them, with flips if it saw flips.
        held_out: (K, D) of real images of other patients, whose distances to training images are the usual
            ones. Without them the distances among training images are; slices of one patient make those
            smaller and hide copies.

    Example:
        >>> training, held_out = torch.tensor([[0.0], [10.0]]), torch.tensor([[3.0], [6.0]])
        >>> nearest_training(torch.tensor([[0.5]]), training, held_out).copied().tolist()
        [1.0]
    """
    distances, indices = (each[:, 0] for each in find_nearest(samples, training))
    reference = find_nearest(training)[0] if held_out is None else find_nearest(held_out, training)[0]
    usual = reference.flatten().sort().values
    ranks = torch.searchsorted(usual, distances.contiguous()).double() / len(usual)
    return NearestTraining(indices, distances, ranks, float(usual.median()))


def save_nearest(
    path: str | os.PathLike[str], samples: Tensor, training: Tensor, nearest: Mapping[str, NearestTraining]
) -> None:
    """Writes each sample beside its nearest training images as PNG, with the distances below, atomically.

    Args:
        path: the PNG file.
        samples, training: images (N, 1, H, W) and (M, 1, H, W) in [-1, 1].
        nearest: by the name of the space, e.g. ``{"features": ..., "pixels": ...}``; a column each.

    Example:
        >>> import tempfile
        >>> images = torch.linspace(-1, 1, 3 * 256).view(3, 1, 16, 16)
        >>> found = nearest_training(images[:1].flatten(1), images.flatten(1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_nearest(f"{folder}/nearest.png", images[:1], images, {"pixels": found})
    """
    columns = [samples, *(training[each.indices] for each in nearest.values())]
    tiles = tiled([column.detach().float().cpu().add(1).div(2) for column in columns])
    ratios = {name: each.ratios().tolist() for name, each in nearest.items()}
    names = [
        f"{index}: " + ", ".join(f"{each[index]:.2f} x usual in {name}" for name, each in ratios.items())
        for index in range(len(samples))
    ]
    picture = sheet(tiles, ("generated", *(f"nearest: {name}" for name in nearest)), names)
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))
