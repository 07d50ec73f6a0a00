"""The nearest real images of each image where flips, turns, shifts, zoom and gray inversion do not count.

Two stages. A grid of poses is tried on images of 16 x 16 pixels, all pairs at once; of each query's nearest
patients the best image is then laid on the query by a local search at 32 x 32 (of more than `SHIFT_SEARCH`
pairs at 16 x 16, and halves stay where they are). The similarity of two images is the absolute correlation of
their gray values under a window: the whole image, or one half of it, so that an image that was put together
from halves of two others is found too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from common.data.samples import ORIENTATIONS
from common.metrics.baselines import mean_image
from common.metrics.features import small_images
from common.metrics.nearest_neighbors import find_nearest

Vectors = Callable[[Tensor], Tensor]
"""Turns images (N, 1, S, S) into vectors (N, D)."""
WAYS = tuple(ORIENTATIONS)
Shift = tuple[int, int]
"""Pixels down and across."""
STAY: tuple[Shift, ...] = ((0, 0),)


def shifts_up_to(reach: int) -> tuple[Shift, ...]:
    """All shifts by whole pixels of at most ``reach`` each way, the shortest first."""
    steps = range(-reach, reach + 1)
    return tuple(
        sorted(((down, across) for down in steps for across in steps), key=lambda s: abs(s[0]) + abs(s[1]))
    )


@dataclass(frozen=True)
class Found:
    """Of each query the nearest reference.

    Attributes:
        distances: (N,) float64.
        indices: (N,) of the references.
        ways: (N,) places in `WAYS`: how the turned side was turned.
    """

    distances: Tensor
    indices: Tensor
    ways: Tensor


def turned(images: Tensor, way: str) -> Tensor:
    """Square images (N, 1, S, S), all turned one of the eight `WAYS`."""
    array = ORIENTATIONS[way](images.permute(2, 3, 0, 1).numpy())  # (S, S, N, 1)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 3, 0, 1)))


def shifted(images: Tensor, shift: Shift) -> Tensor:
    """Images (N, 1, H, W) moved; what comes in from beyond the border is the border's pixel."""
    down, across = shift
    if not down and not across:
        return images
    reach, (height, width) = max(abs(down), abs(across)), images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    top, left = reach - down, reach - across
    return padded[..., top : top + height, left : left + width]


def all_moved(
    images: Tensor, vectors: Vectors, shifts: Sequence[Shift] = STAY
) -> Iterator[tuple[int, Tensor]]:
    """Of the images turned each of the `WAYS` and then shifted: the way's place and the vectors (N, D)."""
    for place, way in enumerate(WAYS):
        upright = turned(images, way)
        for shift in shifts:
            yield place, vectors(shifted(upright, shift))


class NearestOfAll:
    """Gathers the nearest references over the ways that one of the two sides is moved.

    One way is in memory at a time, and of all pairs a block: see `common.metrics.nearest_neighbors`.
    """

    def __init__(self) -> None:
        self._found: Found | None = None

    def add(self, queries: Tensor, references: Tensor, way: int) -> None:
        """Vectors (N, D) and (M, D), one side of them turned that one of the `WAYS`."""
        distances, indices = (part[:, 0] for part in find_nearest(queries, references))
        ways = torch.full_like(indices, way)
        if self._found is None:
            self._found = Found(distances, indices, ways)
            return
        best = self._found
        nearer = distances < best.distances  # of equals the first way
        self._found = Found(
            torch.where(nearer, distances, best.distances),
            torch.where(nearer, indices, best.indices),
            torch.where(nearer, ways, best.ways),
        )

    @property
    def found(self) -> Found:
        """The nearest so far."""
        if self._found is None:
            raise ValueError("nothing was added yet")
        return self._found


SHIFT, ZOOM, TURN, NOISE = 1 / 16, 1.25, 20.0, 0.1
"""The most that a planted copy is shifted (of the side), zoomed, rotated (degrees), and its noise's sd."""
COMPONENTS = 5
MOST_DECOMPOSED = 500
"""Training images, drawn at random, whose principal components are taken."""
BLUR = 1 / 32
"""Standard deviation of the blurred baseline, of the side."""


def moved(images: Tensor, log_scale: Tensor, degrees: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images (N, 1, S, S) zoomed about the middle, rotated and shifted; the border's pixels go on outside.

    Args:
        log_scale, degrees, down, across: (N,) each, or (1,) for all; shifts as shares of the side, of what is
            sampled.
    """
    poses = torch.stack(torch.broadcast_tensors(log_scale, degrees, down, across), 1).float()
    grid = pose_grids(poses.expand(len(images), -1), images.shape[-1])
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def pose_grids(poses: Tensor, side: int) -> Tensor:
    """Where each pixel comes from, (N, side, side, 2) for `torch.nn.functional.grid_sample`.

    Args:
        poses: (N, 4): logarithm of the scale, degrees, shares of the side down and across.
    """
    scale, angle = poses[:, 0].exp(), poses[:, 1].deg2rad()
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    down, across = 2 * poses[:, 2], 2 * poses[:, 3]
    rows = [torch.stack(row, 1) for row in ((cosine, -sine, across), (sine, cosine, down))]
    return F.affine_grid(torch.stack(rows, 1), [len(poses), 1, side, side], align_corners=False)


def planted_copies(images: Tensor, numbers: np.random.Generator) -> Mapping[str, Tensor]:
    """Each kind of copy of all ``images`` (N, 1, S, S) by name; halves are of an image and the next one."""
    still = torch.zeros(len(images))

    def drawn(most: float) -> Tensor:
        return torch.from_numpy(numbers.uniform(-most, most, len(images)))

    noise = torch.from_numpy(numbers.normal(0, NOISE, images.shape)).to(images.dtype)
    halves, middle = images.clone(), images.shape[-1] // 2
    halves[..., middle:] = images.roll(-1, 0)[..., middle:]
    return {
        "exact": images,
        "noisy": images + noise,
        "flipped": images.flip(-1),
        "shifted": moved(images, still, still, drawn(SHIFT), drawn(SHIFT)),
        "zoomed": moved(images, drawn(math.log(ZOOM)), still, still, still),
        "rotated": moved(images, still, drawn(TURN), still, still),
        "gray_inverted": -images,
        "halves": halves,
    }


def harmless(
    training: Tensor, heldout: Tensor, count: int, numbers: np.random.Generator
) -> Mapping[str, Tensor]:
    """Sets that a gate must leave open: (1, 1, S, S), (count, 1, S, S) and (count, 1, S, S)."""
    chosen = torch.from_numpy(numbers.permutation(len(heldout))[:count].copy())
    return {
        "mean_image": mean_image(training, 1),
        "pca": principal_samples(training, count, numbers),
        "blurred_heldout": blurred(heldout[chosen]),
    }


def principal_samples(training: Tensor, count: int, numbers: np.random.Generator) -> Tensor:
    """Draws (count, 1, S, S) of a normal distribution along the training images' principal components."""
    values = training.flatten(1)
    if len(values) > MOST_DECOMPOSED:
        values = values[torch.from_numpy(numbers.permutation(len(values))[:MOST_DECOMPOSED].copy())]
    few = min(COMPONENTS, len(values) - 1)
    _, lengths, axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    spread = lengths[:few] / math.sqrt(len(values) - 1)
    drawn = torch.from_numpy(numbers.normal(size=(count, few))).to(values.dtype)
    return (values.mean(0) + (drawn * spread) @ axes[:few]).clamp(-1, 1).view(count, *training.shape[1:])


def blurred(images: Tensor) -> Tensor:
    """Images (N, 1, S, S) under a Gaussian filter."""
    sigma = BLUR * images.shape[-1]
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, sigma, sigma)))


COARSE, FINE = 16, 32
"""Sides of the images in the first and the second stage, in pixels; smaller images stay as they are."""
NEAREST = 6
"""Patients of which each query's nearest image is laid on it."""
SCALES = (0.8, 0.89, 1.0, 1.12, 1.25)
ANGLES = (-20.0, -13.0, -6.5, 0.0, 6.5, 13.0, 20.0)
SHIFTS = (-0.0625, 0.0, 0.0625)
"""Of the side; between the grid's poses the second stage finds its way."""
WHOLE, HALVES = "whole", ("left", "right", "upper", "lower")
VIEWS = (WHOLE, *HALVES)
FULL_SEARCH, SHIFT_SEARCH = 3_000_000, 100_000_000
"""Pairs of images up to which all poses are tried, and up to which shifts are."""
CHUNK = 2**24
"""Similarities in memory at once: 64 MB."""
BLOCK = 256, 1024
"""Queries and references whose similarities are computed together."""
STEPS = (0.06, 4.0, 0.03, 0.03)
"""First steps of the local search: logarithm of the scale, degrees, shares of the side down and across."""
ROUNDS, LEAST = 7, 1e-4
QUERIES = 256
"""Looked at together after the grid."""
INVALID = 0.5
"""Of the window that a pose must leave covered."""


@dataclass(frozen=True)
class Matches:
    """Of each query, by one view: its nearest patients, the nearest first.

    Attributes:
        similarities: (N, K) float64, absolute correlations 0 to 1.
        images: (N, K) places of the references, each of another patient.
        ways: (N, K) places in `WAYS`: how the reference was turned.
    """

    similarities: Tensor
    images: Tensor
    ways: Tensor

    @property
    def distances(self) -> Tensor:
        """(N, K) Euclidean distances of the normalised patterns."""
        return (2 - 2 * self.similarities).clamp(min=0).sqrt()


class Registration:
    """Searches among ``references``.

    Args:
        references: (M, 1, S, S) in [-1, 1].
        patients: (M,) numbers from 0.
        queries: how many images will be looked up, which says how many poses can be tried.
    """

    def __init__(self, references: Tensor, patients: Tensor, queries: int) -> None:
        self.patients = patients
        self.pairs = queries * len(references)
        self.many = self.pairs > SHIFT_SEARCH
        self.coarse = small_images(references, COARSE)
        self.fine = self.coarse if self.many else small_images(references, FINE)

    @property
    def told(self) -> str:
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
        """By the name of each of the `VIEWS`.

        Args:
            queries: (N, 1, S, S).
            own: (N,) of each query the patient who does not count, -1 for none.
        """
        return {view: self._view(queries, own, view) for view in VIEWS}

    def _view(self, queries: Tensor, own: Tensor, view: str) -> Matches:
        poses = self._poses(view)
        few = max(CHUNK // len(self.coarse), 1)
        split = zip(queries.split(few), own.split(few), strict=True)
        parts = [self._found(*part, poses, view) for part in split]
        return Matches(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _found(self, queries: Tensor, own: Tensor, poses: Tensor, view: str) -> tuple[Tensor, Tensor, Tensor]:
        """Similarities, images and ways (N, K) each, the most similar first."""
        under = window(view, self.coarse.shape[-1])
        best, at = self._grid(_patterns(small_images(queries, COARSE), under), poses, under)  # (N, M)
        images = nearest_of_patients(best, self.patients, own)  # (N, K)
        chosen = at.gather(1, images).long()  # of the poses, the ways outside
        ways, start = chosen // len(poses), poses[chosen % len(poses)]  # (N, K), (N, K, 4)
        similar = self._laid(small_images(queries, self.fine.shape[-1]), images, ways, start, view)
        order = similar.argsort(dim=1, descending=True, stable=True)
        return similar.gather(1, order), images.gather(1, order), ways.gather(1, order)

    def _poses(self, view: str) -> Tensor:
        """(T, 4): logarithm of the scale, degrees, shares of the side down and across."""
        shifts = (0.0,) if self.many else SHIFTS
        full = view == WHOLE and self.pairs <= FULL_SEARCH
        scales, angles = (SCALES, ANGLES) if full else ((1.0,), (0.0,))
        return torch.tensor(list(product(map(math.log, scales), angles, shifts, shifts)))

    def _grid(self, patterns: Tensor, poses: Tensor, under: Tensor) -> tuple[Tensor, Tensor]:
        """The highest similarity (N, M) of queries (N, D) over ways and poses, and which of all it is."""
        best = torch.full((len(patterns), len(self.coarse)), -1.0)
        at = torch.zeros(best.shape, dtype=torch.int32)
        few = max(CHUNK // self.coarse.numel(), 1)
        for way, name in enumerate(WAYS):
            upright = turned(self.coarse, name)
            for first, part in zip(range(0, len(poses), few), poses.split(few), strict=True):
                moved = _patterns(_moved(upright, part), under).unflatten(0, (len(part), -1))  # (T, M, D)
                _keep_highest(best, at, patterns, moved, first + way * len(poses))
        return best, at

    def _laid(self, queries: Tensor, images: Tensor, ways: Tensor, start: Tensor, view: str) -> Tensor:
        """Similarities (N, K) float64 after the local search; of halves of very many there is none."""
        count, few = images.shape
        whole = view == WHOLE
        rounds = ROUNDS if whole else 0 if self.many else ROUNDS // 2
        upright = torch.stack([turned(self.fine, name)[:, 0] for name in WAYS])  # (8, M, s, s)
        under = window(view, self.fine.shape[-1])
        found = []
        for rows in torch.arange(count).split(QUERIES):
            references = upright[ways[rows].flatten(), images[rows].flatten()][:, None]
            targets = queries[rows].repeat_interleave(few, 0)
            found.append(_local(targets, references, start[rows].flatten(0, 1), under, whole, rounds))
        return torch.cat(found).view(count, few).double()


def nearest_of_patients(similar: Tensor, patients: Tensor, own: Tensor) -> Tensor:
    """The nearest patients' nearest images (N, K), the nearest first; K is `NEAREST` or what there is.

    Args:
        similar: (N, M) the higher the nearer.
        patients: (M,) numbers from 0.
        own: (N,) the patient of each query, who does not count; -1 for none.
    """
    count = int(patients.max()) + 1
    few = min(NEAREST, count - 1)
    whose = [torch.nonzero(patients == patient).flatten() for patient in range(count)]
    most = max(map(len, whose))
    members = torch.stack([F.pad(each, (0, most - len(each)), value=int(each[0])) for each in whose])
    found = []
    for rows in torch.arange(len(similar)).split(QUERIES):
        here, owners = similar[rows], patients.expand(len(rows), -1)
        best = torch.full((len(rows), count), -torch.inf).scatter_reduce(1, owners, here, "amax")
        known = own[rows] >= 0
        best[known, own[rows][known]] = -torch.inf
        nearest = best.topk(few, dim=1).indices  # (n, K)
        mine = members[nearest]  # (P, m) -> (n, K, m)
        place = here.gather(1, mine.flatten(1)).view(mine.shape).argmax(2, keepdim=True)
        found.append(mine.gather(2, place)[..., 0])
    return torch.cat(found)


def window(view: str, side: int) -> Tensor:
    """Weights (side, side): a disc with a soft rim, of which a half view keeps its half.

    Whatever the angle, a disc has no corners that come in from outside.
    """
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    radius = (line[:, None].square() + line[None].square()).sqrt()
    disc = ((1.05 - radius) * side / 4).clamp(0, 1)
    down, across = (line[:, None] > 0).float(), (line[None] > 0).float()
    halves = dict(zip(HALVES, (1 - across, across, 1 - down, down), strict=True))
    return disc * halves[view] if view in halves else disc


def _patterns(images: Tensor, weights: Tensor) -> Tensor:
    """Images (N, 1, s, s) as vectors (N, D), of the pixels with a weight: products are correlations."""
    share = (weights / weights.sum()).flatten()
    counts = share > 0
    share, values = share[counts], images.flatten(1)[:, counts]
    centred = (values - (values @ share)[:, None]) * share.sqrt()
    return F.normalize(centred, eps=LEAST)


def _moved(images: Tensor, poses: Tensor) -> Tensor:
    """Images (M, 1, s, s) in each of the poses (T, 4): (T * M, 1, s, s), all in the first pose first."""
    grid = pose_grids(poses, images.shape[-1])
    layers = images.transpose(0, 1).expand(len(poses), -1, -1, -1)  # (T, M, s, s)
    moved = F.grid_sample(layers, grid, padding_mode="border", align_corners=False)
    return moved.flatten(0, 1)[:, None]


def _keep_highest(best: Tensor, at: Tensor, patterns: Tensor, moved: Tensor, first: int) -> None:
    """Puts similarities of queries (N, D) with references in poses (T, M, D) where they exceed ``best``.

    ``best`` and ``at`` are (N, M).
    ``at`` gets the pose, counted from ``first``. It goes by blocks that stay in the processor's cache.
    """
    for above in range(0, len(patterns), BLOCK[0]):
        across = slice(above, above + BLOCK[0])
        queries = patterns[across]
        for start in range(0, moved.shape[1], BLOCK[1]):
            columns = slice(start, start + BLOCK[1])
            highest, place = best[across, columns], at[across, columns]
            for pose, references in enumerate(moved[:, columns]):
                similar = (queries @ references.T).abs_()
                place.masked_fill_(similar > highest, first + pose)
                torch.maximum(highest, similar, out=highest)


def _local(
    targets: Tensor, references: Tensor, start: Tensor, under: Tensor, free: bool, rounds: int
) -> Tensor:
    """The similarities (N,) of pairs of images (N, 1, s, s) at the best pose near ``start`` (N, 4).

    Args:
        free: scale and angle are searched too, not the shift alone.
        rounds: of the search, which halves its steps where none was better; 0 stays at ``start``.
    """
    poses, steps = start.clone(), torch.tensor(STEPS).repeat(len(start), 1)
    best = _similarity(targets, references, poses, under)
    axes = range(4) if free else (2, 3)
    for _ in range(rounds):
        improved = torch.zeros(len(start), dtype=torch.bool)
        for axis, sign in product(axes, (-1, 1)):
            tried = poses.clone()
            tried[:, axis] += sign * steps[:, axis]
            similar = _similarity(targets, references, tried, under)
            better = similar > best
            best, poses = torch.where(better, similar, best), torch.where(better[:, None], tried, poses)
            improved |= better
        steps = torch.where(improved[:, None], steps, steps / 2)
    return best


def _similarity(targets: Tensor, references: Tensor, poses: Tensor, under: Tensor) -> Tensor:
    """Absolute correlations (N,) under the window, where the moved reference covers it."""
    grid = pose_grids(poses, targets.shape[-1])
    moved = F.grid_sample(references, grid, padding_mode="border", align_corners=False)[:, 0]
    weights = under * (grid.abs().amax(-1) <= 1)  # (N, s, s)
    covered = weights.sum((1, 2)) / under.sum()
    share = weights / weights.sum((1, 2), keepdim=True).clamp(min=LEAST)
    parts = [part - (part * share).sum((1, 2), keepdim=True) for part in (targets[:, 0], moved)]
    lengths = [(part.square() * share).sum((1, 2)).sqrt().clamp(min=LEAST) for part in parts]
    similar = (parts[0] * parts[1] * share).sum((1, 2)).abs() / (lengths[0] * lengths[1])
    return torch.where(covered >= INVALID, similar.clamp(max=1), torch.zeros_like(similar))
