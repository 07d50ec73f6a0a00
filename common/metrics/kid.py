"""Kernel distance of features (KID; Binkowski et al. 2018), unbiased for few patients, and excess KID.

Slices of one patient are more alike than slices of different patients. Pairs within a patient would make both
sets look tight and KID large, so they are left out within both sets and between them, as is the pair of an
image and its flip.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from common.metrics.bootstrap import Resamples, Value
from common.metrics.nearest_neighbors import ROWS, Owners, number_owners

Patients = Sequence[str] | None
BLUR = 1.0
"""Standard deviation in pixels of the blur that has an excess KID of 1."""
ROUNDING = 1e-9
"""Relative to the kernel's means; smaller differences between them count as 0."""

logger = logging.getLogger(__name__)


def kid(real: Tensor, fake: Tensor, real_patients: Patients = None, fake_patients: Patients = None) -> float:
    """Computes the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) over different patients.

    The kernel is (x . y / D + 1)^3, computed in float64.

    Args:
        real, fake: features (N, D) and (M, D).
        real_patients, fake_patients: one id per image, the same in both sets for the same patient (a
            generated image has the patient of its mask or the id of its generated volume); None for
            independent images.
    Returns:
        KID, which may be below 0; NaN if a set has fewer than two patients.

    Example:
        >>> real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
        >>> kid(real, fake)  # (1 * 2 + 1)^3 + (0 * 1 + 1)^3 - 2 * (1 + 8 + 1 + 27) / 4
        9.5
    """
    owners = number_owners(real_patients, fake_patients, (len(real), len(fake)))
    parts = torch.zeros(len(real), dtype=torch.int64), torch.zeros(len(fake), dtype=torch.int64)
    return squared_discrepancy(real, fake, owners, parts, 1)(torch.ones(1))


def kid_with_interval(
    real: Tensor, fake: Tensor, patients: tuple[Patients, Patients], resamples: Resamples
) -> Value:
    """Computes `kid` with its interval.

    Args:
        patients: of the real and of the fake images.
        resamples: of both sets joined (N + M), or of N images that the real and the fake ones share.

    Example: see `kid_change`.
    """
    owners = number_owners(*patients, (len(real), len(fake)))
    parts = resamples.parts[: len(real)], resamples.parts[-len(fake) :]
    return resamples.by_parts(squared_discrepancy(real, fake, owners, parts, len(resamples.stratum_of_part)))


def kid_change(
    real: Tensor, before: Tensor, after: Tensor, patients: tuple[Patients, Patients], resamples: Resamples
) -> Value:
    """Computes KID of ``after`` minus KID of ``before`` with its interval; below 0 if the images came nearer.

    ``before`` and ``after`` are the same images before and after some processing. Most of what varies between
    images cancels in the difference, so its interval is shorter than those of the two KIDs.

    Args:
        real, before, after: features (N, D), (M, D) and (M, D).
        patients: of the real images and of the M.
        resamples: of the real images and the M joined (N + M).

    Example:
        >>> drawn = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> rng, ids = np.random.default_rng(0), ([f"p{k}" for k in range(30)], [f"q{k}" for k in range(30)])
        >>> first, second = (Resamples.draw(each, 30, 50, rng) for each in ids)
        >>> kid_change(drawn[:30], drawn[30:] + 2, drawn[30:], ids, first.join(second)).high < 0
        True
    """
    owners = number_owners(*patients, (len(real), len(before)))
    parts = resamples.parts[: len(real)], resamples.parts[len(real) :]
    count = len(resamples.stratum_of_part)
    first, second = (FakeTerms.of(real, fake, owners, parts, count) for fake in (before, after))
    return resamples.by_parts(lambda weights: second(weights) - first(weights))


@dataclass(frozen=True)
class KernelSum:
    """Kernel values of pairs of different patients, summed by the parts (of `Resamples`) of both sets.

    Attributes:
        total: (P, P) float64, the sums.
        pairs: (P, P) float64, how many pairs each is about.
    """

    total: Tensor
    pairs: Tensor

    @classmethod
    def of(
        cls,
        first: Tensor,
        second: Tensor | None,
        owners: Owners,
        parts: tuple[Tensor, Tensor | None],
        count: int,
    ) -> KernelSum:
        """Computes the sums over all pairs of features (N, D) and (M, D), in float64.

        Args:
            second: None for the pairs within ``first``.
            owners: of both, see `common.metrics.nearest_neighbors.number_owners`; pairs of one owner are left
                out.
            parts: of each row (N,) and (M,), 0..P-1.
            count: P.
        """
        others = (first if second is None else second).double()
        members = [
            functional.one_hot(part, count).double()
            for part in (parts[0], parts[0] if parts[1] is None else parts[1])
        ]  # (N, P) and (M, P)
        total = torch.zeros(count, count, dtype=torch.float64)
        for rows in torch.arange(len(first)).split(ROWS):
            kernel = (first[rows].double() @ others.T).div_(first.shape[1]).add_(1).pow_(3)  # (R, M)
            kernel.masked_fill_(owners[0][rows, None] == owners[1], 0)
            total += members[0][rows].T @ (kernel @ members[1])
        number = 1 + max(int(each.max()) if len(each) else 0 for each in owners)
        by_owner = [
            torch.zeros(number, count, dtype=torch.float64).index_add_(0, owner, each)
            for owner, each in zip(owners, members, strict=True)
        ]
        pairs = torch.outer(members[0].sum(0), members[1].sum(0)) - by_owner[0].T @ by_owner[1]
        return cls(total, pairs)

    def mean(self, weights: Tensor) -> float:
        """Computes the mean over pairs, parts counting ``weights`` (P or more,) times; NaN without pairs."""
        weights = weights[: len(self.total)].double()
        pairs = float(weights @ self.pairs @ weights)
        return float(weights @ self.total @ weights) / pairs if pairs > 0 else math.nan


@dataclass(frozen=True)
class FakeTerms:
    """The terms of the discrepancy that depend on the fake images, as a function of the parts' weights."""

    within: KernelSum
    between: KernelSum

    @classmethod
    def of(
        cls, real: Tensor, fake: Tensor, owners: Owners, parts: tuple[Tensor, Tensor], count: int
    ) -> FakeTerms:
        """From features (N, D) and (M, D), their owners and their parts (N,) and (M,), ``count`` in all."""
        within = KernelSum.of(fake, None, (owners[1], owners[1]), (parts[1], None), count)
        return cls(within, KernelSum.of(real, fake, owners, parts, count))

    def __call__(self, weights: Tensor) -> float:
        """Computes the mean within the fake images minus twice the mean between both sets."""
        return self.within.mean(weights) - 2 * self.between.mean(weights)

    def size(self, weights: Tensor) -> float:
        """Computes the sum of the terms' absolute values, to which rounding errors are relative."""
        return abs(self.within.mean(weights)) + 2 * abs(self.between.mean(weights))


def squared_discrepancy(
    real: Tensor, fake: Tensor, owners: Owners, parts: tuple[Tensor, Tensor], count: int
) -> Callable[[Tensor], float]:
    """`kid` as a function of how often each of the ``count`` parts counts; arguments as of `FakeTerms.of`."""
    within = KernelSum.of(real, None, (owners[0], owners[0]), (parts[0], None), count)
    terms = FakeTerms.of(real, fake, owners, parts, count)
    return lambda weights: within.mean(weights) + terms(weights)


@dataclass(frozen=True)
class FeatureSet:
    """A set of images as features.

    Attributes:
        features: (N, D).
        patients: one id per image, the same in two sets for the same patient; None for independent images.
        resamples: of the images.
    """

    features: Tensor
    patients: Patients
    resamples: Resamples

    def __len__(self) -> int:
        return len(self.features)


class KernelDistances:
    """KID and excess KID of generated images against held-out real images.

    Excess KID puts KID on a scale that does not depend on the extractor: 0 is the KID of other patients' real
    images (the reference), 1 that of the held-out images blurred by a pixel.

    Args:
        real: held-out images.
        reference: real images of other patients; None to leave out excess KID.
        blurred: features (N, D) of the held-out images after `gaussian_blur`.

    Example:
        >>> drawn = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> parts = zip(drawn.split(20), "abc", strict=True)
        >>> real, others, fake = (
        ...     FeatureSet(part, ids, Resamples.draw(ids, 20, 50, np.random.default_rng(0)))
        ...     for part, name in parts
        ...     for ids in [[f"{name}{k}" for k in range(20)]]
        ... )
        >>> values = KernelDistances(real, others, real.features + 1)(fake)
        >>> list(values), values["excess_kid"].mean < 1
        (['kid', 'excess_kid'], True)
    """

    def __init__(
        self, real: FeatureSet, reference: FeatureSet | None = None, blurred: Tensor | None = None
    ) -> None:
        self.real, self.reference, self.blurred = real, reference, blurred
        self._known: tuple[Tensor, FakeTerms, FakeTerms] | None = None
        self._warned = False

    def __call__(self, fake: FeatureSet) -> dict[str, Value]:
        """``kid`` and, with a reference, ``excess_kid`` of generated images."""
        patients = self.real.patients, fake.patients
        both = self.real.resamples.join(fake.resamples)
        result = {"kid": kid_with_interval(self.real.features, fake.features, patients, both)}
        if self.reference is not None and self.blurred is not None:
            result["excess_kid"] = self._excess(fake)
        return result

    def _excess(self, fake: FeatureSet) -> Value:
        """(KID - the reference's KID) / (the blurred images' KID - the reference's KID), with interval."""
        joined, split = self._real_resamples.join(fake.resamples), len(fake)
        count, parts = len(joined.stratum_of_part), joined.parts[:-split]
        reference, blurred = self._real_terms(parts)
        owners = number_owners(self.real.patients, fake.patients, (len(self.real), split))
        two = parts[: len(self.real)], joined.parts[-split:]
        terms = FakeTerms.of(self.real.features, fake.features, owners, two, count)

        def both_ends(weights: Tensor) -> tuple[float, float]:
            usual = reference(weights)
            step = blurred(weights) - usual
            least = ROUNDING * (blurred.size(weights) + reference.size(weights))
            return terms(weights) - usual, 0.0 if abs(step) <= least else step

        self._warn(both_ends(torch.ones(count, dtype=torch.float64))[1])
        return replace(joined.quotient(both_ends), n=split)

    @cached_property
    def _real_resamples(self) -> Resamples:
        assert self.reference is not None
        return self.real.resamples.join(self.reference.resamples)

    def _real_terms(self, parts: Tensor) -> tuple[FakeTerms, FakeTerms]:
        """The terms of the reference and of the blurred images; computed again only for other parts."""
        if self._known is None or not torch.equal(self._known[0], parts):
            assert self.reference is not None and self.blurred is not None
            real, reference, count = self.real, self.reference, int(parts.max()) + 1
            here, there = parts[: len(real)], parts[len(real) :]
            owners = number_owners(real.patients, reference.patients, (len(real), len(reference)))
            usual = FakeTerms.of(real.features, reference.features, owners, (here, there), count)
            own = owners[0], owners[0]
            self._known = (parts, usual, FakeTerms.of(real.features, self.blurred, own, (here, here), count))
        return self._known[1:]

    def _warn(self, denominator: float) -> None:
        if denominator > 0 or self._warned or math.isnan(denominator):
            return
        self._warned = True
        logger.warning(
            f"no excess KID: to this extractor held-out images blurred by {BLUR:g} pixel are no farther from "
            f"held-out images than other patients' are (KID {denominator:+.3g}); take more patients or "
            "another extractor"
        )


def gaussian_blur(images: Tensor, sigma: float = BLUR) -> Tensor:
    """Blurs images (N, 1, H, W) with a Gaussian of ``sigma`` pixels; edge values are repeated outside.

    Example:
        >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
        >>> [round(value, 1) for value in gaussian_blur(step)[0, 0, 0].tolist()]
        [0.1, 0.3, 0.7, 0.9]
    """
    result = ndimage.gaussian_filter(images.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(result))
