"""Distances between feature vectors, nearest neighbours, and copies of training images among generated ones.

Distances are computed in float64, some rows of the matrix at a time. A generated image is as new as real ones
are if its distance to the nearest training image ranks like that of a real image to its own: ranks of such
images are spread evenly over 0 to 1, ranks of copies are near 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError
from common.files import atomic_write
from common.metrics.bootstrap import Resamples, Value
from common.provenance import SHEET, png_text
from common.visualization import sheet, tiled

ROWS = 256
"""Vectors whose distances to all others are in memory at once: 20 MB for 10 000 others."""
NEAR = 1e-4
"""Of the largest squared length: smaller squared distances are computed from differences, not from products,
whose rounding error would be more than `TIE` of them."""
TIE = 1e-9
"""Squared distances count as equal if they differ by less than this share."""
Owners = tuple[Tensor, Tensor]


def squared_distance_rows(
    first: Tensor, second: Tensor | None = None, owners: Owners | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yields rows of the matrix of squared distances: which ones, and (R, M) float64.

    Pairs of vectors of one owner, or of a vector with itself, are infinitely far apart. Equal vectors are
    exactly 0 apart.

    Args:
        first: (N, D).
        second: (M, D); None for the pairs within ``first``.
        owners: numbers (N,) and (M,), see `number_owners`; None if every vector has its own owner.
    """
    if owners is None and second is None:
        owners = (torch.arange(len(first)),) * 2
    second = first if second is None else second
    total = first.sum(0, dtype=torch.float64) + second.sum(0, dtype=torch.float64)
    centre = total / max(len(first) + len(second), 1)  # (D,)
    right = second.to(torch.float64, copy=True).sub_(centre)
    lengths = torch.linalg.vector_norm(right, dim=1).square()  # (M,)
    longest = lengths.amax() if len(right) else 0.0
    for start in range(0, len(first), ROWS):
        rows = slice(start, min(start + ROWS, len(first)))
        left = first[rows].double() - centre
        squared = torch.addmm(lengths, left, right.T, alpha=-2)  # (R, M)
        squared.add_(left.square().sum(1, keepdim=True)).clamp_(min=0)
        own = None if owners is None else owners[0][rows, None] == owners[1]
        if own is not None:
            squared.masked_fill_(own, torch.inf)
        near = (squared < NEAR * longest).any(1)
        if near.any():
            exact = torch.cdist(left[near], right, compute_mode="donot_use_mm_for_euclid_dist").square_()
            squared[near] = exact if own is None else exact.masked_fill_(own[near], torch.inf)
        yield rows, squared


def number_owners(
    first: Sequence[str] | None, second: Sequence[str] | None, lengths: tuple[int, int]
) -> Owners:
    """Numbers patients (N,) and (M,) int64 of two sets of images, equal for the same patient in either set.

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
    """Computes squared distances of corresponding rows (P, D) -> (P,) float64; exactly 0 for equal rows.

    Example:
        >>> squared_distances(torch.tensor([[1.0, 5.0]]), torch.tensor([[4.0, 1.0]])).tolist()
        [25.0]
    """
    return (first.double() - second.double()).square().sum(1)


def find_nearest(
    queries: Tensor, references: Tensor | None = None, k: int = 1, owners: Owners | None = None
) -> tuple[Tensor, Tensor]:
    """Finds the ``k`` nearest references of each query, nearest first.

    Args:
        queries: (N, D).
        references: (M, D); None for the other queries.
        k: at least 1.
        owners: of queries and references, see `squared_distance_rows`.
    Returns:
        Distances (N, k) float64 and indices (N, k).
    Raises:
        UserError: fewer than ``k`` references of another owner.

    Example:
        >>> references = torch.tensor([[9.0], [2.0], [-1.0]])
        >>> distances, indices = find_nearest(torch.tensor([[0.0]]), references, k=2)
        >>> distances.tolist(), indices.tolist()
        ([[1.0, 2.0]], [[2, 1]])
    """
    others = queries if references is None else references
    distances = torch.empty(len(queries), k, dtype=torch.float64)
    indices = torch.empty(len(queries), k, dtype=torch.int64)
    for rows, squared in squared_distance_rows(queries, references, owners):
        available = int((squared != torch.inf).sum(1).min())
        if available < k:
            raise UserError(
                f"{k} nearest images wanted, but there are {available}; bring more images or lower k"
            )
        nearest = squared.topk(k, dim=1, largest=False).indices  # (R, k)
        exact = (queries[rows, None].double() - others[nearest].double()).square().sum(2)
        exact, order = exact.sort(dim=1, stable=True)
        distances[rows], indices[rows] = exact.sqrt(), nearest.gather(1, order)
    return distances, indices


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
        """Computes the share of copies with its interval."""
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
