"""The release gate: may these synthetic images leave the house?

The similarity of two images is the correlation of their patterns (32 x 32 pixels; 1 for copies, whatever
their brightness and contrast), the highest of the eight flips and turns and of small shifts. Real images of
other patients say how similar to a training image one may be without being a copy of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from scipy.stats import betabinom
from torch import Tensor

from common.errors import UserError
from common.metrics.pixels import pattern_vectors
from common.trust.orientations import Found

LEVEL = 0.05
"""Share of held-out images that are more similar to a training image than the threshold."""
SIGNIFICANT = 0.01
NEARER = 4
"""An image is a copy if its 1 - similarity is so many times smaller than that of every held-out image: half
the distance. The smallest of many distances shrinks slowly where images differ in many ways, so other real
images do not come that near by being many."""


@dataclass(frozen=True)
class Gate:
    """The answer.

    Attributes:
        open: whether the synthetic images may be released as they are.
        threshold: the similarity above which an image is flagged.
        flagged: places of the synthetic images above it, the most similar first.
        reason: one sentence.
        similarities: of each synthetic image to its nearest training image.
        nearest: which one that is.
        p_value: of the test; NaN where the threshold was given.
        calibrated: whether the threshold comes from the held-out images.
    """

    open: bool
    threshold: float
    flagged: list[int]
    reason: str
    similarities: list[float] = field(default_factory=list)
    nearest: list[int] = field(default_factory=list)
    p_value: float = math.nan
    calibrated: bool = True


def similarities(images: Tensor, found: Found) -> Tensor:
    """Correlations (N,) float64 of images (N, 1, S, S) with what was found nearest by `pattern_vectors`.

    A constant image is like nothing: 0.
    """
    constant = pattern_vectors(images).square().sum(1) < 0.5  # else 1
    correlations = 1 - found.distances.square() / 2
    return torch.where(constant, torch.zeros_like(correlations), correlations).clamp(-1, 1)


def release_gate(
    synthetic: Tensor, heldout: Tensor, nearest: Sequence[int] = (), max_similarity: float | None = None
) -> Gate:
    """Opens or closes.

    Without ``max_similarity`` the threshold is what 5 % of the held-out images exceed. The gate closes if
    significantly more synthetic images do (p < 0.01), or if one is a copy beyond doubt, see `NEARER`.
    With it, the gate closes if any synthetic image exceeds it.

    Args:
        synthetic, heldout: similarities (N,) and (M,) to the nearest training image.
        nearest: which training image that is of each synthetic one.
        max_similarity: in [-1, 1]; None calibrates.
    Raises:
        UserError: ``max_similarity`` is no correlation.
    """
    threshold = calibrated(heldout) if max_similarity is None else _checked(max_similarity)
    order = synthetic.argsort(descending=True, stable=True).tolist()
    flagged = [place for place in order if synthetic[place] > threshold]
    known = synthetic.tolist(), [int(place) for place in nearest]
    if max_similarity is not None:
        return Gate(not flagged, threshold, flagged, _given(flagged, threshold), *known, calibrated=False)
    p_value = exceedance_p_value(len(flagged), len(synthetic), len(heldout))
    copies = int((synthetic > copied_from(heldout)).sum())
    told = _told(copies, flagged, len(synthetic), threshold, p_value)
    return Gate(not copies and p_value >= SIGNIFICANT, threshold, flagged, told, *known, p_value)


def calibrated(heldout: Tensor) -> float:
    """The similarity that a share of `LEVEL` of images like the held-out ones exceeds; their highest where
    they are too few to say."""
    return float(heldout.sort(descending=True).values[_rank(len(heldout)) - 1])


def copied_from(heldout: Tensor) -> float:
    """The similarity beyond which an image is a copy, whatever the others are."""
    return 1 - (1 - float(heldout.max())) / NEARER


def exceedance_p_value(exceeding: int, images: int, heldout: int) -> float:
    """How likely so many of ``images`` or more exceed the threshold if they are like held-out ones.

    The binomial test would take the share above the threshold for known. It was estimated on ``heldout``
    images: the share above the r-th highest of m is Beta(r, m + 1 - r) distributed, whatever the similarities
    are, so the count is beta-binomial. Exact for independent images.
    """
    rank = _rank(heldout)
    return float(betabinom.sf(exceeding - 1, images, rank, heldout + 1 - rank))


def _rank(heldout: int) -> int:
    """Which of the highest held-out similarities is the threshold, from 1."""
    return max(1, math.floor(LEVEL * (heldout + 1)))


def _checked(similarity: float) -> float:
    if not -1 <= similarity <= 1:
        raise UserError(f"max_similarity {similarity}: a correlation between -1 and 1, such as 0.95")
    return float(similarity)


def _given(flagged: Sequence[int], threshold: float) -> str:
    if not flagged:
        return f"no synthetic image is more similar to a training image than the given {threshold:.3g}"
    return (
        f"{len(flagged)} synthetic images are more similar to a training image than the given {threshold:.3g}"
    )


def _told(copies: int, flagged: Sequence[int], images: int, threshold: float, p_value: float) -> str:
    similar = f"more similar to a training image than {threshold:.3g}"
    share = f"{len(flagged)} of {images} synthetic images are {similar}"
    if copies:
        which = "1 image is a copy" if copies == 1 else f"{copies} images are copies"
        return f"{which} (nearer to a training image than half of what any held-out one is); {share}"
    verdict = "so many can be chance" if p_value >= SIGNIFICANT else "so many are no chance"
    return f"{share}, which {100 * LEVEL:.0f} % of held-out real images exceed; {verdict} (p = {p_value:.2g})"
