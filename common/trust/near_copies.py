"""Synthetic images that lie far nearer to one patient than to others, as copies do.

The distance to the nearest patient is taken relative to that of the next ones, which cancels blur: a flat or
averaged image is near to everybody. Training and held-out patients are searched together, as one pool, so an
image that resembles nobody falls to either side by chance. Real images of the pool, each without its own
patient, show how near a patient may be without a copy; planted copies show what the search finds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from common.metrics.baselines import mean_image
from common.metrics.features import FeatureExtractor, extract
from common.rng import make_rng
from common.trust.image_sets import Sets
from common.trust.registration import WHOLE, Matches, Registration, nearest_of_patients, warp

LEVEL = 0.05
"""Share of real patients with an image above the threshold, at most."""
REACHED = 0.9
"""Share of planted copies that lie far beyond it."""
SOURCES = 2
"""Distances are relative to those of the patients after this many: a blend has two sources."""
MOST_REFERENCE = 600
"""Real images that are searched for in the pool, some of each patient."""
PLANTED = 24
"""Training images that each kind of copy is made of."""
HARMLESS = 20
"""Images of each set that is near to real ones without copying."""
FLOOR = 0.02
"""Smallest relative distance; below it nothing is nearer."""
SPREAD = 0.05
"""Quantile of the real images' relative distance that is one unit of the score below the median."""
ROWS = 256
"""Queries whose distances are in memory at once."""
SHIFT, ZOOM, ROTATION, NOISE = 1 / 16, 1.25, 20.0, 0.1
"""Largest shift (of the side), zoom and rotation (degrees) of a planted copy, and the sd of its noise."""
COMPONENTS = 5
MOST_DECOMPOSED = 500
"""Training images, drawn at random, whose principal components are taken."""
BLUR = 1 / 32
"""Standard deviation of the blurred baseline, of the side."""


def plant_copies(images: Tensor, random: np.random.Generator) -> Mapping[str, Tensor]:
    """Makes each kind of copy of all ``images`` (N, 1, S, S), by name.

    Example:
        >>> images = torch.zeros(2, 1, 16, 16)
        >>> list(plant_copies(images, np.random.default_rng(0)))[:4]
        ['exact', 'noisy', 'flipped', 'shifted']
    """
    still = torch.zeros(len(images))

    def draw(most: float) -> Tensor:
        return torch.from_numpy(random.uniform(-most, most, len(images)))

    noise = torch.from_numpy(random.normal(0, NOISE, images.shape)).to(images.dtype)
    halves, middle = images.clone(), images.shape[-1] // 2
    halves[..., middle:] = images.roll(-1, 0)[..., middle:]  # of the next image
    return {
        "exact": images,
        "noisy": images + noise,
        "flipped": images.flip(-1),
        "shifted": warp(images, still, still, draw(SHIFT), draw(SHIFT)),
        "zoomed": warp(images, draw(math.log(ZOOM)), still, still, still),
        "rotated": warp(images, still, draw(ROTATION), still, still),
        "gray_inverted": -images,
        "halves": halves,
    }


def harmless_images(
    training: Tensor, heldout: Tensor, count: int, random: np.random.Generator
) -> Mapping[str, Tensor]:
    """Makes sets that a gate must leave open: (1, 1, S, S), (count, 1, S, S) and (count, 1, S, S)."""
    chosen = torch.from_numpy(random.permutation(len(heldout))[:count].copy())
    return {
        "mean_image": mean_image(training, 1),
        "pca": draw_principal(training, count, random),
        "blurred_heldout": blur(heldout[chosen]),
    }


def draw_principal(training: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Draws (count, 1, S, S) from a normal distribution along the training images' principal components."""
    values = training.flatten(1)
    if len(values) > MOST_DECOMPOSED:
        values = values[torch.from_numpy(random.permutation(len(values))[:MOST_DECOMPOSED].copy())]
    few = min(COMPONENTS, len(values) - 1)
    _, lengths, axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)
    spread = lengths[:few] / math.sqrt(len(values) - 1)
    drawn = torch.from_numpy(random.normal(size=(count, few))).to(values.dtype)
    return (values.mean(0) + (drawn * spread) @ axes[:few]).clamp(-1, 1).view(count, *training.shape[1:])


def blur(images: Tensor) -> Tensor:
    """Applies a Gaussian filter to images (N, 1, S, S)."""
    sigma = BLUR * images.shape[-1]
    return torch.from_numpy(gaussian_filter(images.numpy(), (0, 0, sigma, sigma)))


@dataclass(frozen=True)
class Evidence:
    """The nearest patient of each of N images in the pool of training and held-out images.

    Attributes:
        scores: (N,) float64, how much nearer than usual the nearest patient is: 0 is usual, and 95 % of real
            images are below 1.
        images: (N,) index of that patient's image in the pool, in which training images come first.
        orientations: (N,) index into `common.trust.registration.ORIENTATION_NAMES`: how it was turned.
        views: (N,) index into ``names``: the view in which it is so near.
        whole: (N,) float64, the whole image's correlation with the most similar of the nearest patients.
        training: (N,) float64, the same of training patients alone; 0 where none is among the nearest.
        training_images, training_orientations: (N,) the image that ``training`` is about, and how it was
            turned.
        names: of the views.
    """

    scores: Tensor
    images: Tensor
    orientations: Tensor
    views: Tensor
    whole: Tensor
    training: Tensor
    training_images: Tensor
    training_orientations: Tensor
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def view(self, index: int) -> str:
        """Returns the name of the view in which an image is so near."""
        return self.names[int(self.views[index])]

    def part(self, rows: slice | Tensor) -> Evidence:
        """Returns the evidence on some of the images."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "names"}
        return Evidence(**{name: each[rows] for name, each in tensors.items()}, names=self.names)


@dataclass(frozen=True)
class Copies:
    """What the search found.

    Attributes:
        synthetic, reference: evidence on the images in question, and on real images without their own
            patients.
        patients: (M,) numbers from 0 of the pool's patients, one an image.
        trained: (P,) bool, whether that patient is a training patient.
        owners: (R,) the reference images' patients.
        planted: evidence by the kind of copy of some training images.
        harmless: evidence by the name of a set without copies.
        description: which copies are looked for.
    """

    synthetic: Evidence
    reference: Evidence
    patients: Tensor
    trained: Tensor
    owners: Tensor
    planted: Mapping[str, Evidence]
    harmless: Mapping[str, Evidence]
    description: str

    @property
    def usual(self) -> Tensor:
        """(R,) the highest score of each reference patient's images, the highest first."""
        each = torch.full((len(self.trained),), -torch.inf, dtype=torch.float64)
        each = each.scatter_reduce(0, self.owners, self.reference.scores, "amax")
        return each[each.isfinite()].sort(descending=True).values

    @property
    def threshold(self) -> float:
        """The score above which an image is outstandingly near to a patient.

        It is the geometric mean of what an image of 5 % of real patients exceeds and what 90 % of planted
        copies reach; the former alone where copies reach less.
        """
        rank = max(1, math.floor(LEVEL * (len(self.usual) + 1)))
        reached = torch.cat([each.scores for each in self.planted.values()]).quantile(1 - REACHED)
        least = max(float(self.usual[rank - 1]), FLOOR)
        return math.sqrt(least * max(least, float(reached)))

    @property
    def rank(self) -> int:
        """One more than the number of reference patients with an image above the threshold."""
        return 1 + int((self.usual > self.threshold).sum())

    def hits(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Finds images (N,) bool outstandingly near to a training patient, and those near a held-out one."""
        near = evidence.scores > self.threshold
        trained = self.trained[self.patients[evidence.images]]
        return near & trained, near & ~trained

    def noticed(self) -> Mapping[str, float]:
        """Computes the share of planted copies that are found, by kind."""
        return {kind: float(self.hits(each)[0].double().mean()) for kind, each in self.planted.items()}


def find_copies(
    sets: Sets,
    extractor: FeatureExtractor,
    oriented: Sequence[Tensor],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Copies:
    """Searches for synthetic, some real, planted and harmless images in the pool of all real ones.

    Args:
        extractor: on ``device`` already.
        oriented: features (M, D) of the pool in each of the eight orientations, training images first; see
            `common.trust.membership.oriented_features`.

    Example: see `common.trust.privacy.privacy`.
    """
    pool = torch.cat([sets.real.images, sets.heldout.images])
    names = [*sets.real.patients, *sets.heldout.patients]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    patients = torch.tensor([numbers[name] for name in names])
    chosen = choose_reference(patients, len(sets.real), MOST_REFERENCE)
    some = make_rng(seed, "planted").permutation(len(sets.real))[:PLANTED]
    planted = plant_copies(sets.real.images[some], make_rng(seed, "planted", "changes"))
    easy = harmless_images(sets.real.images, sets.heldout.images, HARMLESS, make_rng(seed, "harmless"))
    groups = [sets.synthetic.images, pool[chosen], *planted.values(), *easy.values()]
    queries, starts = torch.cat(groups), np.cumsum([0, *map(len, groups)]).tolist()
    reference = slice(starts[1], starts[2])
    own = torch.full((len(queries),), -1)
    own[reference] = patients[chosen]
    search = Registration(pool, patients, len(queries))
    features = extract(extractor, queries, device=device)
    views = {
        **search.matches(queries, own),
        extractor.name: match_features(features, oriented, patients, own),
    }
    evidence = combine_views(views, reference, len(sets.real))
    parts = [evidence.part(slice(*ends)) for ends in pairwise(starts)]
    return Copies(
        parts[0],
        parts[1],
        patients,
        torch.arange(len(numbers)) < len(set(sets.real.patients)),
        patients[chosen],
        dict(zip(planted, parts[2:], strict=False)),
        dict(zip(easy, parts[2 + len(planted) :], strict=True)),
        search.description,
    )


def choose_reference(patients: Tensor, training: int, most: int) -> Tensor:
    """Chooses at most ``most`` images: the first of each patient, then the second ones, and so on.

    Half of them are of held-out patients, as far as there are enough.

    Args:
        patients: (M,) numbers from 0; the first ``training`` images are the training images.
    Returns:
        Indices (K,).

    Example:
        >>> choose_reference(torch.tensor([0, 0, 1, 2, 3, 3]), training=3, most=4).tolist()
        [0, 2, 3, 4]
    """
    counts: Counter[int] = Counter()
    order: list[tuple[int, int]] = []
    for index, patient in enumerate(patients.tolist()):
        counts[patient] += 1
        order.append((counts[patient], index))
    trained, heldout = sorted(order[:training]), sorted(order[training:])
    apart = min(len(heldout), max(most // 2, most - len(trained)))
    return torch.tensor(sorted(index for _, index in heldout[:apart] + trained[: most - apart]))


def match_features(features: Tensor, oriented: Sequence[Tensor], patients: Tensor, own: Tensor) -> Matches:
    """Finds the nearest patients by features; similarities are 1 - distance^2 / 2, as those of unit vectors.

    Candidates are found in float32; the distances to them are exact.

    Args:
        features: (N, D) of the queries.
        oriented: (M, D) of the references, once for each orientation.
        patients: (M,) numbers from 0.
        own: (N,) each query's own patient, who does not count; -1 for none.
    """
    centre = torch.stack([each.mean(0) for each in oriented]).mean(0)
    references = [each - centre for each in oriented]
    offsets = [-each.square().sum(1) / 2 for each in references]
    parts = []
    for rows in torch.arange(len(own)).split(ROWS):
        queries = features[rows] - centre
        close = torch.full((len(rows), len(patients)), -torch.inf)
        for offset, each in zip(offsets, references, strict=True):  # (|q|^2 - |q - r|^2) / 2
            torch.maximum(close, torch.addmm(offset, queries, each.T), out=close)
        images = nearest_of_patients(close, patients, own[rows])  # (n, K)
        exact = [(features[rows, None] - each[images]).double().square().sum(2) for each in oriented]
        squared, orientations = torch.stack(exact).min(0)  # (8, n, K) -> (n, K)
        order = squared.argsort(dim=1, stable=True)
        parts.append([part.gather(1, order) for part in (1 - squared / 2, images, orientations)])
    return Matches(*(torch.cat(each) for each in zip(*parts, strict=True)))


def combine_views(views: Mapping[str, Matches], reference: slice, training: int) -> Evidence:
    """Finds the view in which each image is most outstandingly near, in units of the reference's spread.

    Args:
        views: by name, one of them `WHOLE`.
        reference: the searched images that are real ones, without their own patients.
        training: how many of the pool's images are training images; they come first.
    """
    scores = torch.stack(
        [_standardise(_relative_distance(each.distances), reference) for each in views.values()]
    )
    highest, which = scores.max(0)
    rows, whole = torch.arange(len(highest)), views[WHOLE]
    images = torch.stack([each.images[:, 0] for each in views.values()])[which, rows]
    orientations = torch.stack([each.orientations[:, 0] for each in views.values()])[which, rows]
    similar = torch.where(whole.images < training, whole.similarities, torch.zeros_like(whole.similarities))
    most = similar.argmax(1, keepdim=True)
    return Evidence(
        highest,
        images,
        orientations,
        which,
        whole.similarities[:, 0],
        similar.gather(1, most)[:, 0],
        whole.images.gather(1, most)[:, 0],
        whole.orientations.gather(1, most)[:, 0],
        tuple(views),
    )


def _relative_distance(distances: Tensor) -> Tensor:
    """(N,) logarithm of the nearest patient's distance relative to the mean of the next ones', of (N, K)."""
    after = min(SOURCES, distances.shape[1] - 1)
    usual = distances[:, after:].mean(1).clamp(min=torch.finfo(torch.float64).tiny)
    return (distances[:, 0] / usual).clamp(min=FLOOR).log()


def _standardise(logarithms: Tensor, reference: slice) -> Tensor:
    """Computes how far below the reference's median, relative to its `SPREAD` quantile."""
    real = logarithms[reference]
    middle, low = real.median(), real.quantile(SPREAD)
    return (middle - logarithms) / (middle - low).clamp(min=FLOOR)
