"""Distances between training, held-out and synthetic images, and the membership attack that uses them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from common.metrics.bootstrap import Resamples, Value
from common.metrics.features import FeatureExtractor, extract, pattern_vectors, small_images
from common.metrics.nearest_neighbors import squared_distances
from common.rng import make_rng
from common.trust.image_sets import Sets
from common.trust.registration import ORIENTATION_NAMES, turn

REACH = 2
"""Largest shift that is searched, of 32 pixels: 6 % of the side."""
MOST_PAIRS = 10_000_000
"""With more pairs of images no shifts are searched, which are 25 times the work."""
BLOCK = 512, 1024
"""Queries and references that are compared at once, in the processor's cache."""
CHANCE = 0.5
SPLITS = 499
"""Random splits of the patients; with the true one the p-value is a multiple of 1/500."""
SIGNIFICANT = 0.01


@dataclass(frozen=True)
class Nearest:
    """The nearest reference of each of N queries, over all orientations of one of the two sides.

    Attributes:
        distances: (N,) float64, Euclidean.
        indices: (N,) of the references.
        orientations: (N,) indices into `common.trust.registration.ORIENTATION_NAMES`.
    """

    distances: Tensor
    indices: Tensor
    orientations: Tensor


class NearestSearch:
    """Keeps the nearest reference of each of ``count`` queries, one orientation at a time in memory.

    The nearest reference is found in float32, the distance to it is exact.

    Example:
        >>> search, queries = NearestSearch(2), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
        >>> compare(queries, torch.tensor([[5.0, 5.0], [2.0, 1.0]]), 0, search)
        >>> compare(queries, torch.tensor([[0.0, 1.0], [9.0, 9.0]]), 1, search)
        >>> search.nearest.distances.tolist(), search.nearest.orientations.tolist()
        ([0.0, 1.0], [1, 0])
    """

    def __init__(self, count: int) -> None:
        self._closeness = torch.full((count,), -torch.inf)
        self._improved = torch.zeros(count, dtype=torch.bool)
        self.nearest = Nearest(
            torch.full((count,), torch.inf, dtype=torch.float64),
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(count, dtype=torch.int64),
        )

    def offer(self, start: int, first: int, closeness: Tensor) -> None:
        """Keeps references that are nearer than before.

        Args:
            start, first: index of the first query and of the first reference.
            closeness: (R, C) of these queries and references, minus half the squared distance.
        """
        highest = closeness.amax(1)
        hits = (highest > self._closeness[start : start + len(highest)]).nonzero()[:, 0]  # ever fewer
        self._closeness[hits + start] = highest[hits]
        self.nearest.indices[hits + start] = closeness[hits].argmax(1) + first
        self._improved[hits + start] = True

    def settle(self, queries: Tensor, references: Tensor, orientation: int) -> None:
        """Measures the distances of all queries that have a nearer reference since the last call."""
        rows = self._improved.nonzero()[:, 0]
        for part in rows.split(BLOCK[1]):
            squared = squared_distances(queries[part], references[self.nearest.indices[part]])
            self.nearest.distances[part] = squared.sqrt()
        self.nearest.orientations[rows] = orientation
        self._improved[rows] = False


def compare(
    queries: Tensor,
    references: Tensor,
    orientation: int,
    of_queries: NearestSearch,
    of_references: NearestSearch | None = None,
) -> None:
    """Searches nearer references of all queries and, in the same pass, nearer queries of all references.

    Args:
        queries, references: (N, D) and (M, D), one side in this orientation.
        of_queries, of_references: the searches to update.
    """
    centre = (queries.sum(0) + references.sum(0)) / (len(queries) + len(references))
    left, right = queries - centre, references - centre
    halves = [-part.square().sum(1, keepdim=True) / 2 for part in (left, right)]
    # (x, -|x|^2 / 2, 1) . (y, 1, -|y|^2 / 2) = -|x - y|^2 / 2
    left = torch.cat([left, halves[0], torch.ones_like(halves[0])], 1)
    right = torch.cat([right, torch.ones_like(halves[1]), halves[1]], 1)
    for top in range(0, len(left), BLOCK[0]):
        for start in range(0, len(right), BLOCK[1]):
            closeness = left[top : top + BLOCK[0]] @ right[start : start + BLOCK[1]].T
            of_queries.offer(top, start, closeness)
            if of_references is not None:
                of_references.offer(start, top, closeness.T)
    of_queries.settle(queries, references, orientation)
    if of_references is not None:
        of_references.settle(references, queries, orientation)


@dataclass(frozen=True)
class Distances:
    """Nearest images in one space; flips and quarter turns do not count, in pixels small shifts neither.

    Attributes:
        synthetic: the nearest training image of each synthetic image.
        heldout: the nearest training image of each held-out image.
        members: the nearest synthetic image of each training image.
        others: the nearest synthetic image of each held-out image.
    """

    synthetic: Nearest
    heldout: Nearest
    members: Nearest
    others: Nearest


def measure_distances(
    synthetic: Tensor, heldout: Tensor, oriented: Iterable[tuple[int, Tensor, Tensor]]
) -> Distances:
    """Computes all four kinds of distance.

    Args:
        synthetic, heldout: vectors (N, D) and (K, D).
        oriented: the orientation's index, the training images' vectors (M, D) and the held-out ones' (K, D)
            in it, once or more for each orientation.
    """
    of_synthetic, of_heldout = NearestSearch(len(synthetic)), NearestSearch(len(heldout))
    of_members, of_others = None, NearestSearch(len(heldout))
    for orientation, training, others in oriented:
        of_members = of_members or NearestSearch(len(training))
        compare(synthetic, training, orientation, of_synthetic, of_members)
        compare(heldout, training, orientation, of_heldout)
        compare(others, synthetic, orientation, of_others)
    assert of_members is not None
    return Distances(*(each.nearest for each in (of_synthetic, of_heldout, of_members, of_others)))


def pixel_distances(sets: Sets) -> Distances:
    """Measures distances between patterns of 32 x 32 pixels, see `common.metrics.features.pattern_vectors`.

    Example:
        >>> from common.trust.image_sets import ImageSet
        >>> images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> parts = (images[:4], images[4:], images[:4].flip(-1))  # the synthetic images are mirrored copies
        >>> sets = Sets(*(ImageSet(part, list("abcd"), list("1234")) for part in parts))
        >>> pixel_distances(sets).synthetic.indices.tolist()
        [0, 1, 2, 3]
    """
    few = len(sets.real) * max(len(sets.synthetic), len(sets.heldout)) <= MOST_PAIRS
    shifts = shifts_up_to(REACH if few else 0)
    real, heldout = (small_images(each.images) for each in (sets.real, sets.heldout))
    moved = zip(orient_and_shift(real, shifts), orient_and_shift(heldout, shifts), strict=True)
    return measure_distances(
        pattern_vectors(sets.synthetic.images),
        pattern_vectors(heldout),
        ((orientation, here, there) for (orientation, here), (_, there) in moved),
    )


def oriented_features(
    extractor: FeatureExtractor, images: Tensor, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Extracts features (N, D) of images (N, 1, S, S) in each of the eight orientations."""
    return [extract(extractor, turn(images, name), device=device) for name in ORIENTATION_NAMES]


def orient_and_shift(
    images: Tensor, shifts: Sequence[tuple[int, int]] = ((0, 0),)
) -> Iterator[tuple[int, Tensor]]:
    """Yields orientation and patterns (N, D) of images (N, 1, S, S) for each orientation and shift."""
    for orientation, name in enumerate(ORIENTATION_NAMES):
        turned = turn(images, name)
        for shift in shifts:
            yield orientation, pattern_vectors(shift_pixels(turned, shift))


def shifts_up_to(reach: int) -> list[tuple[int, int]]:
    """Lists all shifts, pixels down and across, of at most ``reach`` each, the shortest first.

    Example:
        >>> shifts_up_to(1)[:3]
        [(0, 0), (-1, 0), (0, -1)]
    """
    steps = range(-reach, reach + 1)
    return sorted(product(steps, steps), key=lambda shift: abs(shift[0]) + abs(shift[1]))


def shift_pixels(images: Tensor, shift: tuple[int, int]) -> Tensor:
    """Shifts images (N, 1, H, W) down and across; border pixels continue outside."""
    down, across = shift
    reach, (height, width) = max(abs(down), abs(across)), images.shape[-2:]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    top, left = reach - down, reach - across
    return padded[..., top : top + height, left : left + width]


def mean_by_patient(values: Tensor, patients: Sequence[str]) -> Tensor:
    """Averages values (N, ...) by patient: (P, ...) float64, patients in order of appearance.

    Example:
        >>> mean_by_patient(torch.tensor([4.0, 1.0, 2.0]), ["b", "a", "b"]).tolist()
        [3.0, 1.0]
    """
    names = {name: number for number, name in enumerate(dict.fromkeys(patients))}
    owners = torch.tensor([names[patient] for patient in patients])
    sums = torch.zeros(len(names), *values.shape[1:], dtype=torch.float64)
    counts = owners.bincount().view(-1, *[1] * (values.ndim - 1))
    return sums.index_add(0, owners, values.double()) / counts


def membership_auc(members: Tensor, others: Tensor, weights: Tensor | None = None) -> float:
    """Computes the chance that a member is nearer to synthetic images than another patient; ties count half.

    Args:
        members, others: distances (N,) and (M,) to the nearest synthetic image.
        weights: (N + M,) how often each counts, members first (bootstrap); once each by default.
    Returns:
        0 to 1; NaN where no member or no other counts.

    Example:
        >>> membership_auc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
        0.875
    """
    here, there = _count_by_distance(members, others, weights)
    farther = there.sum() - there.cumsum(0)  # others that are farther than each distance
    return float((here * (farther + there / 2)).sum() / (here.sum() * there.sum()))


def tpr_at_fpr(members: Tensor, others: Tensor, rate: float, weights: Tensor | None = None) -> float:
    """Computes the share of members recognised if at most a share ``rate`` of others is taken for members.

    Args:
        members, others, weights: as in `membership_auc`.
        rate: with fewer than 1 / ``rate`` others, none of them may be taken for a member.
    Returns:
        0 to 1; NaN where no member or no other counts.

    Example:
        >>> tpr_at_fpr(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 3.0]), rate=0.01)
        0.5
    """
    here, there = _count_by_distance(members, others, weights)
    allowed = there.cumsum(0) <= rate * there.sum()
    return float((here * allowed).sum() / here.sum()) if there.any() else float("nan")


def membership_attack(
    members: Tensor,
    others: Tensor,
    patients: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
    resamples: int = 500,
    rate: float | None = None,
) -> Value:
    """Computes `membership_auc`, or `tpr_at_fpr` at a ``rate``, over patients, with its interval.

    Args:
        members, others: distances (N,) and (M,) of images.
        patients: of the members and of the others, one id per image.

    Example:
        >>> near, far = torch.linspace(0, 1, 8), torch.linspace(2, 3, 8)
        >>> membership_attack(near, far, (list("aabbccdd"), list("eeffgghh")), resamples=20).mean
        1.0
    """
    near, far = mean_by_patient(members, patients[0]), mean_by_patient(others, patients[1])

    def statistic(weights: Tensor) -> float:
        if rate is None:
            return membership_auc(near, far, weights)
        return tpr_at_fpr(near, far, rate, weights)

    sides = []
    for side, count in enumerate((len(near), len(far))):
        ids = [f"{side} {k}" for k in range(count)]
        sides.append(Resamples.draw(ids, count, resamples, make_rng(seed, "membership", side)))
    both = sides[0].join(sides[1])
    return (
        both.percentile(statistic) if rate is not None else both.distance(statistic).within(0, 1)
    )  # rates jump


def roc_curve(members: Tensor, others: Tensor) -> tuple[list[float], list[float]]:
    """Computes the attack's ROC curve: shares of others (M,) and of members (N,) below each distance."""
    levels = torch.cat([members, others]).unique()
    shares = [
        torch.searchsorted(part.sort().values, levels, right=True).double() / len(part)
        for part in (others, members)
    ]
    false, true = ([0.0, *share.tolist()] for share in shares)
    return false, true


def _count_by_distance(members: Tensor, others: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Counts members and others at each distance, the smallest first."""
    levels, indices = torch.cat([members, others]).unique(return_inverse=True)
    counts = torch.ones(len(indices), dtype=torch.float64) if weights is None else weights.double()
    split = len(members)
    here, there = (
        torch.zeros(len(levels), dtype=torch.float64).index_add(0, indices[part], counts[part])
        for part in (slice(0, split), slice(split, None))
    )
    return here, there


@dataclass(frozen=True)
class DomainShift:
    """How far apart the mean patients of two sets are.

    Attributes:
        ratio: the squared distance as a multiple of the usual one, that of random splits by patient.
        p_value: of the permutation test.
    """

    ratio: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether it is more than expected by chance."""
        return self.p_value < SIGNIFICANT


def domain_shift(
    training: Tensor, heldout: Tensor, patients: tuple[Sequence[str], Sequence[str]], seed: int = 0
) -> DomainShift:
    """Compares the squared distance of the sets' means with that of random splits (permutation test).

    Args:
        training, heldout: features (N, D) and (M, D).
        patients: of both, one id per image; each patient counts once.

    Example:
        >>> drawn = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        >>> names = [str(k) for k in range(40)]
        >>> domain_shift(drawn[:20] + 3, drawn[20:], (names[:20], names[20:])).significant
        True
    """
    means = torch.cat([mean_by_patient(training, patients[0]), mean_by_patient(heldout, patients[1])])
    means = (means - means.mean(0)) / means.std(0).clamp(min=1e-6)  # (P, D)
    trained = len(set(patients[0]))
    random = make_rng(seed, "shift")
    sides = torch.zeros(1 + SPLITS, len(means), dtype=torch.float64)
    sides[0, :trained] = 1
    for row in sides[1:]:
        row[torch.from_numpy(random.permutation(len(means))[:trained])] = 1
    weights = sides / trained - (1 - sides) / (len(means) - trained)  # (1 + SPLITS, P)
    squared = (weights @ means).square().sum(1)
    usual = squared[1:].median().clamp(min=torch.finfo(torch.float64).tiny)
    return DomainShift(float(squared[0] / usual), float((squared >= squared[0]).double().mean()))
