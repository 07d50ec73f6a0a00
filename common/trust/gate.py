"""The release gate: may these synthetic images leave the house?

Patients are the unit, for images of one patient are not independent. An image that is outstandingly near to
one patient (see `common.trust.near_copies`) is a hit; a copy hits the training patient that it was made of,
and whatever else is like a real patient hits training and held-out ones alike, as many as there are of each.
So the gate asks whether the patients that were hit are training patients more often than by chance, and
whether there are more of them than real images of other patients would hit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.stats import betabinom, hypergeom, nchypergeom_wallenius
from torch import Tensor

from common.errors import UserError
from common.metrics.features import pattern_vectors
from common.rng import make_rng
from common.trust.membership import Nearest
from common.trust.near_copies import Copies

OPEN, CLOSED, UNDECIDED = "open", "closed", "undecided"
SIGNIFICANT = 0.01
NEARER = 4
"""An image is a copy beyond doubt if its 1 - similarity to a training patient is so many times smaller than
any real image's to another patient: half the distance. The smallest of many distances shrinks slowly where
images differ in many ways, so other real images do not come that near by being many."""
FEWEST = 20
"""Held-out patients, without whom the gate is undecided."""
COARSEST = 0.2
"""The gate is undecided where a larger share of copies would not have been noticed."""
DRAWS, SURE = 200, 0.9
"""In how many draws of copied images, and in which share of them, the gate would have closed."""


@dataclass(frozen=True)
class Gate:
    """The answer.

    Attributes:
        verdict: ``open``, ``closed`` or ``undecided``.
        threshold: the score above which an image is flagged; a similarity where that was given.
        flagged: places of the synthetic images above it that are nearest to a training patient, the
            outstanding ones first.
        reason: one sentence.
        similarities: of each synthetic image to its nearest training image: a correlation.
        nearest: which one that is.
        scores: see `common.trust.near_copies.Evidence`.
        p_value: of the test; NaN where the threshold was given.
        calibrated: whether the threshold comes from real images.
        noticed: the smallest share of copies that would have closed the gate; infinite for none, NaN where
            the threshold was given.
    """

    verdict: str
    threshold: float
    flagged: list[int]
    reason: str
    similarities: list[float] = field(default_factory=list)
    nearest: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    p_value: float = math.nan
    calibrated: bool = True
    noticed: float = math.nan

    @property
    def open(self) -> bool:
        """Whether the synthetic images may be released as they are."""
        return self.verdict == OPEN


@dataclass(frozen=True)
class Counts:
    """What the tests need.

    Attributes:
        images: synthetic ones.
        trained, heldout: patients.
        hit, hit_heldout: how many of them were hit.
        reference: patients whose images were looked up to find the threshold.
        rank: one more than of these exceed it.
        odds: how many times as many images there are of a training patient as of a held-out one.
    """

    images: int
    trained: int
    heldout: int
    hit: int
    hit_heldout: int
    reference: int
    rank: int
    odds: float = 1.0

    def p_value(self, hit: int | None = None) -> float:
        """Of both tests together (Bonferroni), with ``hit`` training patients instead of those that were."""
        here = self.hit if hit is None else hit
        side = side_p_value(here, self.hit_heldout, self.trained, self.heldout, self.odds)
        both = side, many_p_value(here, self.images, self.rank, self.reference)
        return min(1.0, 2 * min(both))

    @property
    def critical(self) -> int | None:
        """The fewest training patients whose being hit closes the gate; None where all of them would not."""
        most = min(self.trained, self.images)
        low, high = 0, most
        if not most or self.p_value(most) >= SIGNIFICANT:
            return None
        while high - low > 1:  # the p-value falls with every patient
            middle = (low + high) // 2
            low, high = (low, middle) if self.p_value(middle) < SIGNIFICANT else (middle, high)
        return high


def pattern_similarity(images: Tensor, nearest: Nearest) -> Tensor:
    """Correlations (N,) float64 of images (N, 1, S, S) with their nearest image by `pattern_vectors`.

    A constant image resembles nothing: 0.
    """
    constant = pattern_vectors(images).square().sum(1) < 0.5  # else 1
    correlations = 1 - nearest.distances.square() / 2
    return torch.where(constant, torch.zeros_like(correlations), correlations).clamp(-1, 1)


def side_p_value(hit: int, hit_heldout: int, trained: int, heldout: int, odds: float = 1.0) -> float:
    """How likely so many of the patients that were hit, or more, are training patients by chance.

    Which patients a model was trained on says nothing of images that are no copies: of the patients they hit,
    the training patients are hypergeometrically distributed (Fisher's exact test), however many images hit
    each of them and whoever these images are of. Patients with more images are hit more often: where training
    patients have more, the distribution is Wallenius' noncentral one.

    Args:
        odds: see `Counts`; below 1 is taken for 1.
    """
    if odds <= 1:
        return float(hypergeom.sf(hit - 1, trained + heldout, trained, hit + hit_heldout))
    return float(nchypergeom_wallenius.sf(hit - 1, trained + heldout, trained, hit + hit_heldout, odds))


def many_p_value(hit: int, images: int, rank: int, reference: int) -> float:
    """How likely so many training patients or more are hit by images of as many other patients.

    A share of real patients hits others too: the share above the r-th highest of m scores is
    Beta(r, m + 1 - r) distributed, whatever the scores are, so the count is beta-binomial (and not more where
    the threshold lies between that score and the next higher one). If several images are of one patient,
    fewer are hit.
    """
    return float(betabinom.sf(hit - 1, images, rank, reference + 1 - rank))


def counts_of(copies: Copies) -> Counts:
    """Patients that the synthetic images hit."""
    hit, apart = (
        len(copies.patients[copies.synthetic.images[near]].unique()) for near in copies.hits(copies.synthetic)
    )
    trained, heldout = int(copies.trained.sum()), int((~copies.trained).sum())
    images = int(copies.trained[copies.patients].sum())
    return Counts(
        len(copies.synthetic),
        trained,
        heldout,
        hit,
        apart,
        reference=len(copies.usual),
        rank=copies.rank,
        odds=(images / trained) / ((len(copies.patients) - images) / heldout),
    )


def smallest_noticed(copies: Copies, counts: Counts, seed: int = 0) -> float:
    """The smallest share of copies of the synthetic images that would have closed the gate nine times in ten.

    Copies of training images drawn at random hit their patients with the share that was found of those
    planted, of the kind of copy that is found worst; of the held-out patients as many are hit as real images
    of other patients hit.

    Returns:
        Infinite where no share would have.
    """
    by_chance = round((counts.rank - 1) / counts.reference * counts.heldout)
    critical = replace(counts, hit_heldout=by_chance).critical
    found = min(copies.noticed().values())
    if critical is None:
        return math.inf
    numbers = make_rng(seed, "gate", "noticed")
    owners = copies.patients[copies.trained[copies.patients]].numpy()
    needed = []
    for _ in range(DRAWS):
        hit = np.resize(owners[numbers.permutation(len(owners))], counts.images)
        places = np.flatnonzero(numbers.random(counts.images) < found)
        firsts = np.sort(np.unique(hit[places], return_index=True)[1])  # of each patient, among those found
        needed.append(places[firsts[critical - 1]] + 1 if len(firsts) >= critical else math.inf)
    return float(np.quantile(needed, SURE, method="higher")) / counts.images


def release_gate(
    copies: Copies,
    similar: Tensor,
    nearest: Sequence[int],
    max_similarity: float | None = None,
    seed: int = 0,
) -> Gate:
    """Opens, closes or leaves undecided.

    Without ``max_similarity`` the gate closes if significantly more training patients are hit than chance
    would have it (p < 0.01), or if one image is a copy beyond doubt, see `NEARER`. With it, it closes if any
    synthetic image is more similar to a training image.

    Args:
        similar: (N,) similarities of the synthetic images to their nearest training images.
        nearest: which ones these are.
        max_similarity: in [-1, 1]; None calibrates.
        seed: of the draws that say what would have been noticed.
    Raises:
        UserError: ``max_similarity`` is no correlation.
    """
    found = copies.synthetic
    given = max_similarity is not None
    measure = similar if given else found.scores
    threshold = _checked(max_similarity) if max_similarity is not None else copies.threshold
    hits = similar > threshold if given else copies.hits(found)[0]
    order = measure.argsort(descending=True, stable=True).tolist()
    flagged = [place for place in order if hits[place]]
    places = [int(place) for place in nearest]
    known = similar.tolist(), places, found.scores.tolist()
    if given:
        verdict = CLOSED if flagged else OPEN
        return Gate(verdict, threshold, flagged, _given(flagged, threshold), *known, calibrated=False)
    counts = counts_of(copies)
    p_value, noticed = counts.p_value(), smallest_noticed(copies, counts, seed)
    sure = int(beyond_doubt(copies).sum())
    verdict = _verdict(counts, p_value, sure, noticed)
    reason = _reason(verdict, counts, len(flagged), sure, p_value, noticed)
    return Gate(verdict, threshold, flagged, reason, *known, p_value=p_value, noticed=noticed)


def beyond_doubt(copies: Copies) -> Tensor:
    """Which synthetic images (N,) bool are copies whatever the others are, see `NEARER`."""
    found = copies.synthetic
    limit = 1 - (1 - float(copies.reference.whole.max())) / NEARER
    return copies.hits(found)[0] & (found.training >= found.whole) & (found.whole > limit)


def _verdict(counts: Counts, p_value: float, sure: int, noticed: float) -> str:
    if counts.heldout < FEWEST:
        return UNDECIDED
    if sure or p_value < SIGNIFICANT:
        return CLOSED
    return OPEN if noticed <= COARSEST else UNDECIDED


def _checked(similarity: float) -> float:
    if not -1 <= similarity <= 1:
        raise UserError(f"max_similarity {similarity}: a correlation between -1 and 1, such as 0.95")
    return float(similarity)


def _given(flagged: Sequence[int], threshold: float) -> str:
    many = f"{len(flagged)} synthetic images are" if flagged else "no synthetic image is"
    many = "1 synthetic image is" if len(flagged) == 1 else many
    return f"{many} more similar to a training image than the given {threshold:.3g}"


def _reason(verdict: str, counts: Counts, flagged: int, sure: int, p_value: float, noticed: float) -> str:
    told = (
        f"{flagged} of {counts.images} synthetic images {'is' if flagged == 1 else 'are'} outstandingly near "
        "to a training patient "
        f"({counts.hit} of {counts.trained} training patients, {counts.hit_heldout} of {counts.heldout} "
        f"held-out ones; p = {p_value:.2g})"
    )
    copied = "1 image is a copy" if sure == 1 else f"{sure} images are copies"
    if sure:
        told = f"{copied} (nearer to a training image than half of what any other real one is); {told}"
    if verdict == CLOSED:
        return told
    if verdict == OPEN:
        return f"no evidence of copying above {100 * noticed:.3g} % of the images; {told}"
    if counts.heldout < FEWEST:
        few = "1 held-out patient is" if counts.heldout == 1 else f"{counts.heldout} held-out patients are"
        return f"{few} too few to tell, bring at least {FEWEST}; {told}"
    least = f"of less than {100 * noticed:.3g} %" if math.isfinite(noticed) else "of any share"
    return f"copies {least} of the images would not have been noticed; {told}"
