"""Whether generated images are copies: the nearest training image of each, and how near it is.

A distance means little by itself. It is ranked among the distances of real images to their nearest training
image: samples as new as real ones have ranks spread evenly over 0 to 1, copies have ranks near 0.
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

COPIED = 0.05  # samples with a rank below count as copies; of real images as many do


@dataclass(frozen=True)
class Nearest:
    """Of each sample.

    Attributes:
        indices: (N,) the nearest training image.
        distances: (N,) float64 to it.
        ranks: (N,) the share of real images that are nearer to their nearest training image.
        usual: the real images' median distance.
    """

    indices: Tensor
    distances: Tensor
    ranks: Tensor
    usual: float

    def copied(self, level: float = COPIED) -> Tensor:
        """(N,) 1 for samples that are nearer than all but ``level`` of the real images, else 0.

        The mean is the share of copies; real images have ``level``.
        """
        return (self.ranks < level).double()

    def share(self, resamples: Resamples, level: float = COPIED) -> Value:
        """The share of copies with its interval."""
        return resamples.share(self.copied(level))

    def ratios(self) -> Tensor:
        """(N,) distances as multiples of the usual one."""
        return self.distances / max(self.usual, torch.finfo(torch.float64).tiny)


def nearest_training(samples: Tensor, training: Tensor, held_out: Tensor | None = None) -> Nearest:
    """The nearest training image of each sample, by features or by `common.metrics.features.pattern_vectors`.

    Args:
        samples: (N, D).
        training: (M, D) of the images as the network saw them: flipped ones too where it saw those.
        held_out: (K, D) of real images of other patients, whose distances to the training images say what is
            usual. Without them, training images' distances among each other do; slices of one patient make
            those smaller and hide copies.
    """
    distances, indices = (found[:, 0] for found in find_nearest(samples, training))
    reference = find_nearest(training)[0] if held_out is None else find_nearest(held_out, training)[0]
    usual = reference.flatten().sort().values
    ranks = torch.searchsorted(usual, distances.contiguous()).double() / len(usual)
    return Nearest(indices, distances, ranks, float(usual.median()))


def save_nearest(
    path: str | os.PathLike[str], samples: Tensor, training: Tensor, found: Mapping[str, Nearest]
) -> None:
    """Writes each sample beside its nearest training images as PNG, atomically.

    Below each row stand the distances as multiples of the usual one.

    Args:
        path: the PNG file.
        samples, training: images (N, 1, H, W) and (M, 1, H, W) in [-1, 1].
        found: by the name of the space, e.g. ``{"features": ..., "pixels": ...}``: a column each.
    """
    columns = [samples, *(training[each.indices] for each in found.values())]
    tiles = tiled([column.detach().float().cpu().add(1).div(2) for column in columns])
    ratios = {name: each.ratios().tolist() for name, each in found.items()}
    names = [
        f"{index}: " + ", ".join(f"{each[index]:.2f} x usual in {name}" for name, each in ratios.items())
        for index in range(len(samples))
    ]
    picture = sheet(tiles, ("generated", *(f"nearest: {name}" for name in found)), names)
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))
