"""Which images lie far nearer to one patient than images of other patients do: what copies do.

The nearest patient's distance is taken relative to that of the next ones, which cancels blur: a flat or
averaged image is near to everybody. Training and held-out patients are looked up together, as one pool, so
an image that is like nobody's goes by chance to the one or to the other. Real images of the pool, each
without its own patient, say how much nearer a patient may be without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.metrics.features import FeatureExtractor, extract
from common.rng import make_rng
from common.trust.image_sets import Sets
from common.trust.registration import (
    WHOLE,
    Matches,
    Registration,
    harmless,
    nearest_of_patients,
    planted_copies,
)

LEVEL = 0.05
"""Share of real patients of whom an image exceeds the threshold, at most."""
REACHED = 0.9
"""Share of planted copies that are far beyond it."""
SOURCES = 2
"""The patients nearest but this many are the measure: a blend has two sources."""
MOST_REFERENCE = 600
"""Real images that are looked up in the pool, some of each patient."""
PLANTED = 24
"""Training images of which each kind of copy is planted: enough for the share found of the worst kind."""
HARMLESS = 20
FLOOR = 0.02
"""Relative nearness below which nothing is nearer."""
SPREAD = 0.05
"""Share of real images whose nearness is more than 1 below the middle."""
QUERIES = 256
"""Queries whose distances are in memory at once."""


@dataclass(frozen=True)
class Evidence:
    """Of each image that was looked up in the pool of training and held-out images.

    Attributes:
        scores: (N,) float64, how much nearer than usual its nearest patient is: 0 is usual, of 95 % of real
            images below 1.
        images: (N,) the nearest image in the pool; training images come first there.
        ways: (N,) places in `WAYS`: how that image was turned.
        views: (N,) in which view it is so near.
        training: (N,) float64, the correlation of the whole image with that of the nearest training patient;
            0 where none of the nearest patients is one.
        whole: (N,) float64, the whole image's correlation with whatever is nearest.
        alike: (N,) the image in the pool that ``training`` is of.
        alike_ways: (N,) how that image was turned.
    """

    scores: Tensor
    images: Tensor
    ways: Tensor
    views: Sequence[str]
    training: Tensor
    whole: Tensor
    alike: Tensor
    alike_ways: Tensor

    def __len__(self) -> int:
        return len(self.scores)

    def part(self, start: int, count: int) -> Evidence:
        """``count`` of the images."""
        here = slice(start, start + count)
        return Evidence(
            self.scores[here],
            self.images[here],
            self.ways[here],
            self.views[here],
            self.training[here],
            self.whole[here],
            self.alike[here],
            self.alike_ways[here],
        )


@dataclass(frozen=True)
class Copies:
    """What the search found.

    Attributes:
        synthetic, reference: the images in question, and real images without their own patients.
        patients: of the pool's images, as numbers from 0.
        trained: (P,) bool, of each number whether it is a training patient.
        owners: of the reference images, as numbers.
        planted: by the kind of copy of some training images.
        harmless: by the name of a set that is no copy.
        told: which copies are looked for.
    """

    synthetic: Evidence
    reference: Evidence
    patients: Tensor
    trained: Tensor
    owners: Tensor
    planted: Mapping[str, Evidence]
    harmless: Mapping[str, Evidence]
    told: str

    @property
    def usual(self) -> Tensor:
        """(R,) the highest score of an image of each patient in the reference, the highest first."""
        each = torch.full((len(self.trained),), -torch.inf, dtype=torch.float64)
        each = each.scatter_reduce(0, self.owners, self.reference.scores, "amax")
        return each[each.isfinite()].sort(descending=True).values

    @property
    def threshold(self) -> float:
        """The score above which an image is outstandingly near to a patient.

        It lies half way, on a scale of ratios, between what an image of 5 % of real patients exceeds and what
        90 % of planted copies reach; it is the former where these reach less.
        """
        rank = max(1, math.floor(LEVEL * (len(self.usual) + 1)))
        reached = torch.cat([each.scores for each in self.planted.values()]).quantile(1 - REACHED)
        least = max(float(self.usual[rank - 1]), FLOOR)
        return math.sqrt(least * max(least, float(reached)))

    @property
    def rank(self) -> int:
        """One more than there are patients in the reference of whom an image exceeds the threshold."""
        return 1 + int((self.usual > self.threshold).sum())

    def hits(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Which images (N,) bool are outstandingly near to a training patient, and to a held-out one."""
        near = evidence.scores > self.threshold
        trained = self.trained[self.patients[evidence.images]]
        return near & trained, near & ~trained

    def noticed(self) -> Mapping[str, float]:
        """The share of planted copies that are found, by kind."""
        return {kind: float(self.hits(each)[0].double().mean()) for kind, each in self.planted.items()}


def find_copies(
    sets: Sets,
    extractor: FeatureExtractor,
    moved: Sequence[Tensor],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Copies:
    """Looks synthetic, some real, planted and harmless images up in the pool of all real ones.

    Args:
        extractor: on ``device`` already.
        moved: features (M, D) of the pool, training images first, once for each of the `WAYS`.
    """
    training, pool = len(sets.real), torch.cat([sets.real.images, sets.heldout.images])
    names = [*sets.real.patients, *sets.heldout.patients]
    numbers = {name: place for place, name in enumerate(dict.fromkeys(names))}
    patients = torch.tensor([numbers[name] for name in names])
    chosen = _spread(patients, training, MOST_REFERENCE)
    some = make_rng(seed, "planted").permutation(training)[:PLANTED]
    planted = planted_copies(sets.real.images[some], make_rng(seed, "planted", "changes"))
    easy = harmless(sets.real.images, sets.heldout.images, HARMLESS, make_rng(seed, "harmless"))
    groups = [sets.synthetic.images, pool[chosen], *planted.values(), *easy.values()]
    own = torch.full((sum(map(len, groups)),), -1)
    own[len(groups[0]) : len(groups[0]) + len(chosen)] = patients[chosen]
    queries = torch.cat(groups)
    search = Registration(pool, patients, len(queries))
    features = extract(extractor, queries, device=device)
    views = {**search.matches(queries, own), extractor.name: by_features(features, moved, patients, own)}
    reference = slice(len(groups[0]), len(groups[0]) + len(chosen))
    found = evidence(views, reference, training)
    starts = [0, *torch.tensor([len(group) for group in groups]).cumsum(0).tolist()]
    parts = [found.part(start, len(group)) for start, group in zip(starts, groups, strict=False)]
    trained = torch.arange(len(numbers)) < len(set(sets.real.patients))
    return Copies(
        parts[0],
        parts[1],
        patients,
        trained,
        patients[chosen],
        dict(zip(planted, parts[2:], strict=False)),
        dict(zip(easy, parts[2 + len(planted) :], strict=True)),
        search.told,
    )


def _spread(patients: Tensor, training: int, most: int) -> Tensor:
    """At most ``most`` places (K,): the first image of each patient, then the second ones, and so on.

    Half of them are of held-out patients, as far as there are so many, however many training patients come
    before these in the pool.

    Args:
        patients: (M,) numbers from 0; the first ``training`` images are the training images.
    """
    seen: dict[int, int] = {}
    order: list[tuple[int, int]] = []
    for place, patient in enumerate(patients.tolist()):
        seen[patient] = seen.get(patient, 0) + 1
        order.append((seen[patient], place))
    trained, heldout = sorted(order[:training]), sorted(order[training:])
    apart = min(len(heldout), max(most // 2, most - len(trained)))
    return torch.tensor(sorted(place for _, place in heldout[:apart] + trained[: most - apart]))


def by_features(features: Tensor, moved: Sequence[Tensor], patients: Tensor, own: Tensor) -> Matches:
    """The nearest patients by features; similarities are 1 - distance^2 / 2, as those of unit vectors are.

    Args:
        features: (N, D) of the queries.
        moved: (M, D) of the references, once for each way that they are turned.
        patients: (M,) numbers from 0.
        own: (N,) of each query the patient who does not count, -1 for none.
    """
    parts = []
    for rows in torch.arange(len(own)).split(QUERIES):
        apart = torch.stack([torch.cdist(features[rows], each) for each in moved])  # (8, n, M)
        nearest, ways = apart.min(0)
        images = nearest_of_patients(-nearest, patients, own[rows])
        parts.append((1 - nearest.gather(1, images).double().square() / 2, images, ways.gather(1, images)))
    return Matches(*(torch.cat(each) for each in zip(*parts, strict=True)))


def evidence(views: Mapping[str, Matches], reference: slice, training: int) -> Evidence:
    """The view in which each image is most outstandingly near, in units of the reference images' spread.

    Args:
        views: by name, one of them `WHOLE`.
        reference: which of the images that were looked up are real ones without their own patients.
        training: how many of the pool's images are training images; they come first.
    """
    scores = torch.stack([_standardised(_nearness(each.distances), reference) for each in views.values()])
    highest, which = scores.max(0)
    rows = torch.arange(len(highest))
    images = torch.stack([each.images[:, 0] for each in views.values()])[which, rows]
    ways = torch.stack([each.ways[:, 0] for each in views.values()])[which, rows]
    names = list(views)
    whole = views[WHOLE]
    similar = torch.where(whole.images < training, whole.similarities, torch.zeros_like(whole.similarities))
    said = [names[place] for place in which.tolist()]
    most = similar.argmax(1, keepdim=True)
    alike = [part.gather(1, most)[:, 0] for part in (similar, whole.images, whole.ways)]
    return Evidence(highest, images, ways, said, alike[0], whole.similarities[:, 0], *alike[1:])


def _nearness(distances: Tensor) -> Tensor:
    """(N,) the logarithm of the nearest patient's distance as a multiple of the next ones', of (N, K)."""
    after = min(SOURCES, distances.shape[1] - 1)
    usual = distances[:, after:].mean(1).clamp(min=torch.finfo(torch.float64).tiny)
    return (distances[:, 0] / usual).clamp(min=FLOOR).log()


def _standardised(nearness: Tensor, reference: slice) -> Tensor:
    """How far below the reference's middle, as a multiple of what 5 % of it are."""
    real = nearness[reference]
    middle, low = real.median(), real.quantile(SPREAD)
    return (middle - nearness) / (middle - low).clamp(min=FLOOR)
