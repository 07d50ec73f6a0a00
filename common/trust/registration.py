"""Search for the nearest real images over flips, turns, shifts, zoom, small rotations and gray inversion.

The search has two stages. A grid of poses is tried on images of 16 x 16 pixels, for all pairs; the best
image of each of the nearest patients is then registered to the query by a local search at 32 x 32 pixels
(at 16 x 16 for more than `SHIFT_SEARCH` pairs, whose half views keep the grid's pose). The similarity of two
images is the absolute correlation of their gray values under a window: the whole image or one half of it, so
that an image that was put together from halves of two others is found too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.samples import ORIENTATIONS
from common.metrics.features import small_images

ORIENTATION_NAMES = tuple(ORIENTATIONS)
COARSE, FINE = 16, 32
"""Sides of the images in the first and the second stage, in pixels; smaller images stay as they are."""
NEAREST = 6
"""Patients whose nearest image is registered to each query."""
SCALES = (0.8, 0.89, 1.0, 1.12, 1.25)
ANGLES = (-20.0, -13.0, -6.5, 0.0, 6.5, 13.0, 20.0)
SHIFTS = (-0.0625, 0.0, 0.0625)
"""Shares of the side. Poses between those of the grid are found by the second stage."""
WHOLE, HALVES = "whole", ("left", "right", "upper", "lower")
VIEWS = (WHOLE, *HALVES)
FULL_SEARCH, SHIFT_SEARCH = 3_000_000, 100_000_000
"""Pairs of images up to which all poses are tried, and up to which shifts are."""
SIMILARITIES = 2**24
"""Similarities in memory at once: 64 MB."""
HELD = 2**26
"""Values of transformed references that are kept for all queries (256 MB); more are computed again."""
BLOCK = 256, 1024
"""Queries and references whose similarities are computed together, in the processor's cache."""
STEPS = (0.06, 4.0, 0.03, 0.03)
"""First steps of the local search: logarithm of the scale, degrees, shares of the side down and across."""
ROUNDS, SMALLEST = 7, 1e-4
REGISTERED = 2**16
"""Pixels of the pairs that are registered together: their memory is used again instead of asked for."""
COVERED = 0.5
"""Share of the window that a pose must leave covered."""


def turn(images: Tensor, orientation: str) -> Tensor:
    """Brings square images (N, 1, S, S) into one of the eight `ORIENTATION_NAMES`.

    Example:
        >>> image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> turn(image, "flip_lr").flatten().tolist()
        [2.0, 1.0, 4.0, 3.0]
    """
    array = ORIENTATIONS[orientation](images.permute(2, 3, 0, 1).numpy())  # (S, S, N, 1)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 3, 0, 1)))


def warp(images: Tensor, log_scale: Tensor, degrees: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Zooms images (N, 1, S, S) about the middle, rotates and shifts them; border pixels continue outside.

    Args:
        log_scale, degrees, down, across: (N,) each, or (1,) for all; shifts of the sampling points as shares
            of the side.
    """
    poses = torch.stack(torch.broadcast_tensors(log_scale, degrees, down, across), 1).float()
    points = sampling_points(poses.expand(len(images), -1), images.shape[-1])
    return _sample(images, points)


def sampling_points(poses: Tensor, side: int) -> Tensor:
    """Where each pixel comes from: (N, 2, side * side), across and down, -1 to 1 from border to border.

    Args:
        poses: (N, 4): logarithm of the scale, degrees, shares of the side down and across.
    """
    scale, angle = poses[:, 0].exp(), poses[:, 1].deg2rad()
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    rows = ((cosine, -sine, 2 * poses[:, 3]), (sine, cosine, 2 * poses[:, 2]))
    matrices = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (N, 2, 3)
    line = (torch.arange(side) * 2 + 1) / side - 1
    down, across = torch.meshgrid(line, line, indexing="ij")
    pixels = torch.stack([across, down, torch.ones_like(down)]).flatten(1)  # (3, side * side)
    return (matrices.flatten(0, 1) @ pixels).view(len(poses), 2, -1)  # (2 N, 3) x (3, side * side)


def _sample(images: Tensor, points: Tensor) -> Tensor:
    """Images (N, C, S, S) at sampling points (N, 2, S * S), bilinearly."""
    grid = points.unflatten(2, images.shape[-2:]).permute(0, 2, 3, 1)  # (N, S, S, 2)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def view_window(view: str, side: int) -> Tensor:
    """Weights (side, side): a disc with a soft rim, of which a half view keeps its half.

    A disc has no corners that would come in from outside when an image is rotated.
    """
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    radius = (line[:, None].square() + line[None].square()).sqrt()
    disc = ((1.05 - radius) * side / 4).clamp(0, 1)
    down, across = (line[:, None] > 0).float(), (line[None] > 0).float()
    halves = dict(zip(HALVES, (1 - across, across, 1 - down, down), strict=True))
    return disc * halves[view] if view in halves else disc


@dataclass(frozen=True)
class Matches:
    """The nearest patients of each query in one view, the nearest first.

    Attributes:
        similarities: (N, K) float64, absolute correlations 0 to 1.
        images: (N, K) indices of the references, each of another patient.
        orientations: (N, K) indices into `ORIENTATION_NAMES`: how the reference was turned.
    """

    similarities: Tensor
    images: Tensor
    orientations: Tensor

    @property
    def distances(self) -> Tensor:
        """(N, K) Euclidean distances of the normalised patterns."""
        return (2 - 2 * self.similarities).clamp(min=0).sqrt()


class Registration:
    """Searches for the nearest patients among ``references``.

    Args:
        references: (M, 1, S, S) in [-1, 1].
        patients: (M,) numbers from 0.
        queries: how many images will be looked up, which decides how many poses can be tried.

    Example:
        >>> real = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> search = Registration(real, torch.arange(12), queries=1)
        >>> search.matches(real[3:4].flip(-1), own=torch.tensor([-1]))["whole"].images[0, 0].item()
        3
    """

    def __init__(self, references: Tensor, patients: Tensor, queries: int) -> None:
        self.patients = patients
        self.pairs = queries * len(references)
        self.many = self.pairs > SHIFT_SEARCH
        self.coarse = small_images(references, COARSE)
        self.fine = self.coarse if self.many else small_images(references, FINE)

    @property
    def description(self) -> str:
        """Which copies are looked for, in words."""
        turns = "flipped, turned by quarters, gray-inverted"
        if self.many:
            return f"{turns}; not shifted, zoomed or rotated further: more than {SHIFT_SEARCH:,} pairs"
        shifts = f"{turns}, shifted by up to {SHIFTS[-1]:.0%} of the side"
        if self.pairs > FULL_SEARCH:
            return f"{shifts}; not zoomed or rotated by small angles: more than {FULL_SEARCH:,} pairs"
        return (
            f"{shifts}, zoomed by {SCALES[0]:g} to {SCALES[-1]:g}, rotated by up to {ANGLES[-1]:g} degrees; "
            "whole images and halves of them"
        )

    def matches(self, queries: Tensor, own: Tensor) -> Mapping[str, Matches]:
        """Finds the nearest patients in each of the `VIEWS`.

        Args:
            queries: (N, 1, S, S).
            own: (N,) each query's own patient, who does not count; -1 for none.
        """
        return {view: self.match_view(queries, own, view) for view in VIEWS}

    def match_view(self, queries: Tensor, own: Tensor, view: str) -> Matches:
        """Finds the nearest patients in one view."""
        poses, window = self._poses(view), view_window(view, self.coarse.shape[-1])
        patterns = _patterns(small_images(queries, COARSE), window)
        tried = len(poses) * len(ORIENTATION_NAMES)
        fits = tried * len(self.coarse) * patterns.shape[1] <= HELD
        held = [torch.cat(list(self._transformed(poses, window)))] if fits else None
        parts = []
        for rows in torch.arange(len(queries)).split(max(SIMILARITIES // len(self.coarse), 1)):
            similar, index = search_grid(patterns[rows], held or self._transformed(poses, window), tried)
            nearest = nearest_of_patients(similar, self.patients, own[rows])  # (n, K)
            parts.append((nearest, index.gather(1, nearest).long()))
        images, chosen = (torch.cat(part) for part in zip(*parts, strict=True))  # (N, K) each
        orientations, start = chosen // len(poses), poses[chosen % len(poses)]  # (N, K), (N, K, 4)
        similar = self._register(queries, images, orientations, start, view)
        order = similar.argsort(dim=1, descending=True, stable=True)
        return Matches(*(part.gather(1, order) for part in (similar, images, orientations)))

    def _poses(self, view: str) -> Tensor:
        """(T, 4): logarithm of the scale, degrees, shares of the side down and across."""
        shifts = (0.0,) if self.many else SHIFTS
        full = view == WHOLE and self.pairs <= FULL_SEARCH
        scales, angles = (SCALES, ANGLES) if full else ((1.0,), (0.0,))
        return torch.tensor(list(product(map(math.log, scales), angles, shifts, shifts)))

    def _transformed(self, poses: Tensor, window: Tensor) -> Iterator[Tensor]:
        """Patterns (T, M, D) of the references in some poses at once; all poses of an orientation in turn."""
        few = max(SIMILARITIES // self.coarse.numel(), 1)
        for name in ORIENTATION_NAMES:
            upright = turn(self.coarse, name)
            for part in poses.split(few):
                still = len(poses) == 1
                yield _patterns(upright if still else _pose_all(upright, part), window).unflatten(
                    0, (len(part), -1)
                )

    @cached_property
    def _oriented(self) -> Tensor:
        """(8, M, 1, s, s): the references of the second stage in all orientations."""
        return torch.stack([turn(self.fine, name) for name in ORIENTATION_NAMES])

    def _register(
        self, queries: Tensor, images: Tensor, orientations: Tensor, start: Tensor, view: str
    ) -> Tensor:
        """Similarities (N, K) float64 after a local search from the poses ``start`` (N, K, 4)."""
        free = range(4) if view == WHOLE else (2, 3)
        rounds = ROUNDS if view == WHOLE else 0 if self.many else ROUNDS // 2
        side = self.fine.shape[-1]
        window, targets = view_window(view, side).flatten(), small_images(queries, side)
        pairs = torch.arange(len(queries)).repeat_interleave(images.shape[1])  # (N * K,)
        similarities = []
        for part in torch.arange(len(pairs)).split(max(REGISTERED // side**2, 1)):
            references = self._oriented[orientations.flatten()[part], images.flatten()[part]]
            poses = start.flatten(0, 1)[part]
            similarities.append(refine(targets[pairs[part]], references, poses, window, free, rounds))
        return torch.cat(similarities).view(images.shape).double()


def search_grid(patterns: Tensor, transformed: Iterable[Tensor], tried: int) -> tuple[Tensor, Tensor]:
    """Finds the highest absolute correlation of each query with each reference over all poses, and its pose.

    The index of the pose takes the lowest bits of the float32 similarity (3 bits of 23 for 8 poses, 12 for
    2520, which rounds similarities to 1/4000): one maximum over both is several times faster than one of the
    similarity and a comparison for the index, and the second stage measures what is chosen again.

    Args:
        patterns: (N, D) of the queries, of unit length.
        transformed: (T, M, D) of the references in some of the poses, which follow one another.
        tried: how many poses there are in all.
    Returns:
        Similarities (N, M) float32 and indices (N, M) int32.

    Example:
        >>> references = torch.eye(3)[None].repeat(2, 1, 1)  # two poses of three references
        >>> references[1] = references[1].roll(1, dims=1)
        >>> similar, pose = search_grid(torch.tensor([[0.0, -1.0, 0.0]]), [references], tried=2)
        >>> pose[0, :2].tolist(), similar[0].round().tolist()
        ([1, 0], [1.0, 1.0, 0.0])
    """
    mask = (1 << (tried - 1).bit_length()) - 1
    absolute = 0x7FFFFFFF & ~mask  # without the sign and the index
    best = torch.zeros((len(patterns), 0), dtype=torch.int32)
    first = 0
    for part in transformed:
        if not first:
            best = torch.zeros((len(patterns), part.shape[1]), dtype=torch.int32)
        for rows, columns in product(_slices(len(patterns), BLOCK[0]), _slices(part.shape[1], BLOCK[1])):
            queries, highest = patterns[rows], best[rows, columns]
            for index, references in enumerate(part[:, columns], first):
                similar = (queries @ references.T).view(torch.int32)  # floats above 0 sort as their bits do
                torch.maximum(highest, similar.bitwise_and_(absolute).bitwise_or_(index), out=highest)
        first += len(part)
    return best.view(torch.float32), best & mask


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def nearest_of_patients(similar: Tensor, patients: Tensor, own: Tensor) -> Tensor:
    """Finds the nearest image of each of the nearest patients (N, K), nearest first; K is at most `NEAREST`.

    Args:
        similar: (N, M) the higher the nearer.
        patients: (M,) numbers from 0.
        own: (N,) each query's own patient, who does not count; -1 for none.

    Example:
        >>> similar, patients = torch.tensor([[0.9, 0.2, 0.8, 0.7]]), torch.tensor([0, 1, 0, 2])
        >>> nearest_of_patients(similar, patients, own=torch.tensor([-1])).tolist()
        [[0, 3]]
    """
    count = int(patients.max()) + 1
    few = min(NEAREST, count - 1)
    images_of = [torch.nonzero(patients == patient).flatten() for patient in range(count)]
    most = max(map(len, images_of))
    padded = torch.stack([F.pad(each, (0, most - len(each)), value=int(each[0])) for each in images_of])
    result = []
    for rows in torch.arange(len(similar)).split(BLOCK[0]):
        here, owners = similar[rows], patients.expand(len(rows), -1)
        best = torch.full((len(rows), count), -torch.inf).scatter_reduce(1, owners, here, "amax")
        known = own[rows] >= 0
        best[known, own[rows][known]] = -torch.inf
        images = padded[best.topk(few, dim=1).indices]  # (P, m) -> (n, K, m)
        nearest = here.gather(1, images.flatten(1)).view(images.shape).argmax(2, keepdim=True)
        result.append(images.gather(2, nearest)[..., 0])
    return torch.cat(result)


def _patterns(images: Tensor, window: Tensor) -> Tensor:
    """Images (N, 1, s, s) as vectors (N, D) of the pixels in the window; products are correlations."""
    share = (window / window.sum()).flatten()
    counts = share > 0
    share, values = share[counts], images.flatten(1)[:, counts]
    centred = (values - (values @ share)[:, None]) * share.sqrt()
    return F.normalize(centred, eps=SMALLEST)


def _pose_all(images: Tensor, poses: Tensor) -> Tensor:
    """Images (M, 1, s, s) in each of the poses (T, 4): (T * M, 1, s, s), all in the first pose first."""
    layers = images.transpose(0, 1).expand(len(poses), -1, -1, -1)  # (T, M, s, s)
    return _sample(layers, sampling_points(poses, images.shape[-1])).flatten(0, 1)[:, None]


def refine(
    targets: Tensor, references: Tensor, start: Tensor, window: Tensor, free: Sequence[int], rounds: int
) -> Tensor:
    """Computes the similarity (N,) of pairs of images (N, 1, s, s) at the best pose near ``start`` (N, 4).

    Args:
        window: (s * s,) weights.
        free: which of the pose's numbers are searched, one after the other.
        rounds: after a round without a better pose a pair's steps are halved; 0 keeps ``start``.
    """
    share = window / window.sum()
    values = [images.flatten(1) for images in (targets, references)]  # (N, s * s)
    target, reference = (value - (value @ share)[:, None] for value in values)
    reference = reference.view(references.shape)
    poses, steps = start.clone(), torch.tensor(STEPS).repeat(len(start), 1)
    best = similarity(target, reference, poses, window)
    for _ in range(rounds):
        improved = torch.zeros(len(start), dtype=torch.bool)
        for number, sign in product(free, (-1, 1)):
            tried = poses.clone()
            tried[:, number] += sign * steps[:, number]
            similar = similarity(target, reference, tried, window)
            better = similar > best
            best, poses = torch.where(better, similar, best), torch.where(better[:, None], tried, poses)
            improved |= better
        steps = torch.where(improved[:, None], steps, steps / 2)
    return best


def similarity(targets: Tensor, references: Tensor, poses: Tensor, window: Tensor) -> Tensor:
    """Computes absolute correlations (N,) under the window, of the part that the posed reference covers.

    Args:
        targets: (N, s * s), of a mean near 0, or float32 sums lose digits.
        references: (N, 1, s, s), likewise.
        poses: (N, 4).
        window: (s * s,) weights.
    Returns:
        0 where less than `COVERED` of the window is covered.
    """
    points = sampling_points(poses, references.shape[-1])  # (N, 2, s * s)
    posed = _sample(references, points).flatten(1)
    weights = (points.abs_().amax(1) <= 1).float().mul_(window)  # (N, s * s)
    total = weights.sum(1)
    scale = 1 / total.clamp(min=SMALLEST)
    dot = torch.linalg.vecdot
    weighted, weighted_posed = weights * targets, weights.mul_(posed)
    mean, mean_posed = weighted.sum(1) * scale, weighted_posed.sum(1) * scale
    covariance = dot(weighted, posed) * scale - mean * mean_posed
    variances = (
        dot(weighted, targets) * scale - mean.square(),
        dot(weighted_posed, posed) * scale - mean_posed.square(),
    )
    lengths = [each.clamp(min=0).sqrt().clamp(min=SMALLEST) for each in variances]
    similar = (covariance.abs() / (lengths[0] * lengths[1])).clamp(max=1)
    return torch.where(total / window.sum() >= COVERED, similar, torch.zeros_like(similar))
