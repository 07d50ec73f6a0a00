"""The release gate: may these synthetic images be shared?

Patients are the unit, because images of one patient are not independent. An image that is outstandingly near
to one patient (see `common.trust.near_copies`) is a hit. A copy hits the training patient that it was made
of; other images that resemble a real patient hit training and held-out patients in proportion to their
numbers. So the gate tests whether the patients that were hit are training patients more often than expected
by chance, and whether there are more of them than real images of other patients would hit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import betabinom, hypergeom, nchypergeom_wallenius
from torch import Tensor

from common.errors import UserError
from common.rng import make_rng
from common.trust.near_copies import Copies

OPEN, CLOSED, UNDECIDED = "open", "closed", "undecided"
SIGNIFICANT = 0.01
NEARER = 4
"""An image is certainly a copy if its 1 - similarity to a training patient is this many times smaller than
any real image's to another patient: half the distance. The smallest of many distances shrinks slowly if
images differ in many ways, so other real images do not come that near by their number alone."""
FEWEST = 20
"""With fewer held-out patients the gate is undecided."""
COARSEST = 0.2
"""The gate is undecided where this share of copies could have gone unnoticed."""
DRAWS, SURE = 200, 0.9
"""Draws of copied images, and the share of draws in which the gate must have closed."""


@dataclass(frozen=True)
class Gate:
    """The gate's answer.

    Attributes:
        verdict: ``open``, ``closed`` or ``undecided``.
        threshold: the score above which an image is flagged; a similarity where that was given.
        flagged: indices of the synthetic images above it that are nearest to a training patient, the highest
            score first.
        reason: one sentence.
        similarities: each synthetic image's correlation with its nearest training image.
        nearest: indices of these training images.
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
    """The numbers that the tests take.

    Attributes:
        images: synthetic ones.
        trained, heldout: patients of the pool.
        hit, hit_heldout: how many of them were hit.
        reference: patients whose images set the threshold.
        rank: one more than the number of these that exceed it.
        odds: images per training patient relative to images per held-out patient.

    Example:
        >>> counts = Counts(200, trained=30, heldout=25, hit=12, hit_heldout=0, reference=55, rank=2)
        >>> counts.critical, counts.p_value() < 0.01
        (8, True)
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
        """The p-value of both tests together (Bonferroni), as if ``hit`` training patients had been hit."""
        count = self.hit if hit is None else hit
        side = side_p_value(count, self.hit_heldout, self.trained, self.heldout, self.odds)
        return min(1.0, 2 * min(side, many_p_value(count, self.images, self.rank, self.reference)))

    @property
    def critical(self) -> int | None:
        """The smallest number of hit training patients that closes the gate; None if no number would."""
        most = min(self.trained, self.images)
        low, high = 0, most
        if not most or self.p_value(most) >= SIGNIFICANT:
            return None
        while high - low > 1:  # the p-value falls with every patient
            middle = (low + high) // 2
            low, high = (low, middle) if self.p_value(middle) < SIGNIFICANT else (middle, high)
        return high


def side_p_value(hit: int, hit_heldout: int, trained: int, heldout: int, odds: float = 1.0) -> float:
    """The probability that ``hit`` or more of the hit patients are training patients by chance.

    For images that are no copies it does not matter which patients the model was trained on: among the
    patients that they hit, training patients follow a hypergeometric distribution (Fisher's exact test),
    however many images hit each of them. Patients with more images are hit more often: if training patients
    have more, the distribution is Wallenius' noncentral hypergeometric one.

    Args:
        odds: see `Counts`; values below 1 are taken for 1.

    Example:
        >>> round(side_p_value(hit=5, hit_heldout=0, trained=20, heldout=20), 4)
        0.0236
    """
    if odds <= 1:
        return float(hypergeom.sf(hit - 1, trained + heldout, trained, hit + hit_heldout))
    return float(nchypergeom_wallenius.sf(hit - 1, trained + heldout, trained, hit + hit_heldout, odds))


def many_p_value(hit: int, images: int, rank: int, reference: int) -> float:
    """The probability that images of as many other patients hit as many training patients or more.

    Some real patients hit others too: the share above the r-th highest of m scores has the distribution
    Beta(r, m + 1 - r), whatever that of the scores is, so the count is beta-binomial (and not larger if the
    threshold lies between that score and the next higher one). If several images are of one patient, fewer
    patients are hit.

    Example:
        >>> round(many_p_value(hit=1, images=1, rank=1, reference=19), 6)  # the highest of twenty scores
        0.05
    """
    return float(betabinom.sf(hit - 1, images, rank, reference + 1 - rank))


def counts_of(copies: Copies) -> Counts:
    """Counts the patients that the synthetic images hit."""
    hit, hit_heldout = (
        len(copies.patients[copies.synthetic.images[near]].unique()) for near in copies.hits(copies.synthetic)
    )
    trained, heldout = int(copies.trained.sum()), int((~copies.trained).sum())
    images = int(copies.trained[copies.patients].sum())
    return Counts(
        len(copies.synthetic),
        trained,
        heldout,
        hit,
        hit_heldout,
        reference=len(copies.usual),
        rank=copies.rank,
        odds=(images / trained) / ((len(copies.patients) - images) / heldout),
    )


def smallest_noticed(copies: Copies, counts: Counts, seed: int = 0) -> float:
    """Finds the smallest share of copies that would have closed the gate nine times in ten.

    Copies of randomly drawn training images hit their patients as often as the planted copies of the kind
    that is found worst; as many held-out patients are hit as real images of other patients hit.

    Returns:
        A share of the synthetic images; infinite if no share would have closed it.
    """
    by_chance = round((counts.rank - 1) / counts.reference * counts.heldout)
    critical = replace(counts, hit_heldout=by_chance).critical
    found = min(copies.noticed().values())
    if critical is None:
        return math.inf
    random = make_rng(seed, "gate", "noticed")
    owners = copies.patients[copies.trained[copies.patients]].numpy()
    needed = []
    for _ in range(DRAWS):
        hit = np.resize(owners[random.permutation(len(owners))], counts.images)
        noticed = np.flatnonzero(random.random(counts.images) < found)
        firsts = np.sort(np.unique(hit[noticed], return_index=True)[1])  # each patient's first copy
        needed.append(noticed[firsts[critical - 1]] + 1 if len(firsts) >= critical else math.inf)
    return float(np.quantile(needed, SURE, method="higher")) / counts.images


def release_gate(
    copies: Copies,
    similar: Tensor,
    nearest: Sequence[int],
    max_similarity: float | None = None,
    seed: int = 0,
) -> Gate:
    """Decides whether the gate is open, closed or undecided.

    Without ``max_similarity`` the gate closes if more training patients are hit than expected by chance
    (p < 0.01), or if one image is certainly a copy, see `NEARER`. With it, the gate closes if any synthetic
    image is more similar to a training image.

    Args:
        similar: (N,) similarities of the synthetic images to their nearest training images.
        nearest: indices of these training images.
        max_similarity: in [-1, 1]; None calibrates the threshold on real images.
        seed: of the draws for the smallest share that would have been noticed.
    Raises:
        UserError: ``max_similarity`` is no correlation.

    Example: see `common.trust.privacy.privacy`.
    """
    found = copies.synthetic
    known = similar.tolist(), [int(index) for index in nearest], found.scores.tolist()
    if max_similarity is not None:
        if not -1 <= max_similarity <= 1:
            problem = "a correlation between -1 and 1, such as 0.95"
            raise UserError(f"max_similarity {max_similarity}: give {problem}")
        flagged = _ordered(similar, similar > max_similarity)
        reason = f"{_count_images(len(flagged))} more similar to a training image than the given"
        verdict = CLOSED if flagged else OPEN
        threshold = float(max_similarity)
        return Gate(verdict, threshold, flagged, f"{reason} {threshold:.3g}", *known, calibrated=False)
    flagged = _ordered(found.scores, copies.hits(found)[0])
    counts = counts_of(copies)
    p_value, noticed = counts.p_value(), smallest_noticed(copies, counts, seed)
    sure = int(certain_copies(copies).sum())
    verdict = _verdict(counts, p_value, sure, noticed)
    reason = _reason(verdict, counts, len(flagged), sure, p_value, noticed)
    return Gate(verdict, copies.threshold, flagged, reason, *known, p_value=p_value, noticed=noticed)


def _ordered(measure: Tensor, hits: Tensor) -> list[int]:
    """Indices of the hits, the highest measure first."""
    return [index for index in measure.argsort(descending=True, stable=True).tolist() if hits[index]]


def _count_images(count: int) -> str:
    number = "no" if not count else str(count)
    return f"{number} synthetic {'image is' if count < 2 else 'images are'}"


def certain_copies(copies: Copies) -> Tensor:
    """Finds the synthetic images (N,) bool that are copies whatever the statistics say, see `NEARER`."""
    found = copies.synthetic
    limit = 1 - (1 - float(copies.reference.whole.max())) / NEARER
    return copies.hits(found)[0] & (found.training >= found.whole) & (found.whole > limit)


def _verdict(counts: Counts, p_value: float, sure: int, noticed: float) -> str:
    if counts.heldout < FEWEST:
        return UNDECIDED
    if sure or p_value < SIGNIFICANT:
        return CLOSED
    return OPEN if noticed <= COARSEST else UNDECIDED


def _reason(verdict: str, counts: Counts, flagged: int, sure: int, p_value: float, noticed: float) -> str:
    text = (
        f"{flagged} of {counts.images} synthetic images {'is' if flagged == 1 else 'are'} outstandingly near "
        "to a training patient "
        f"({counts.hit} of {counts.trained} training patients, {counts.hit_heldout} of {counts.heldout} "
        f"held-out ones; p = {p_value:.2g})"
    )
    copied = "1 image is a copy" if sure == 1 else f"{sure} images are copies"
    if sure:
        text = f"{copied} (at less than half the distance of any real image to another patient); {text}"
    if verdict == CLOSED:
        return text
    if verdict == OPEN:
        return f"no evidence of copying above {100 * noticed:.3g} % of the images; {text}"
    if counts.heldout < FEWEST:
        few = "1 held-out patient is" if counts.heldout == 1 else f"{counts.heldout} held-out patients are"
        return f"{few} too few to tell, bring at least {FEWEST}; {text}"
    least = f"of less than {100 * noticed:.3g} %" if math.isfinite(noticed) else "of any share"
    return f"copies {least} of the images would not have been noticed; {text}"
