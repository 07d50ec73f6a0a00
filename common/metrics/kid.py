"""Kernel distance of features (KID; Binkowski et al. 2018): without bias however few the patients.

Two slices of one patient are more alike than two patients are: pairs within a patient would make both sets
look tight, and a distance of 0 large. Such pairs, and those of an image with its own flip, are left out
within both sets and between them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from common.metrics.bootstrap import Resamples, Value
from common.metrics.nearest_neighbors import Block, PairBlocks, left_out, owners_of

Patients = Sequence[str] | None


def polynomial_kernel(first: Tensor, second: Tensor) -> Tensor:
    """(x . y / D + 1)^3 for all pairs of rows (Binkowski et al. 2018, section 4): (N, M) float64."""
    return (first.double() @ second.double().T / first.shape[1] + 1) ** 3


def kid(real: Tensor, fake: Tensor, real_patients: Patients = None, fake_patients: Patients = None) -> float:
    """The squared maximum mean discrepancy (Gretton et al. 2012, equation 3) over different patients' pairs.

    Args:
        real, fake: features (N, D) and (M, D).
        real_patients, fake_patients: one id an image, the same in both sets where it is the same patient (of
            generated images the patient of the mask, or the generated volume); None for independent images.
    Returns:
        May be below 0; NaN where a set has no two patients.
    """
    owners = owners_of(real_patients, fake_patients, (len(real), len(fake)))
    parts = [torch.zeros(len(features), dtype=torch.int64) for features in (real, fake)]
    return float(Discrepancy.of(real, fake, owners, parts[0], parts[1], 1)(torch.ones(1)))


def kid_with_interval(
    real: Tensor, fake: Tensor, patients: tuple[Patients, Patients], resamples: Resamples
) -> Value:
    """`kid` with its interval.

    Args:
        patients: of the real and of the fake images.
        resamples: of both sets as one (N + M), or of N images that the real and the fake ones share.
    """
    owners = owners_of(*patients, (len(real), len(fake)))
    parts = resamples.parts[: len(real)], resamples.parts[-len(fake) :]
    return resamples.by_parts(Discrepancy.of(real, fake, owners, *parts, len(resamples.stratum_of_part)))


def kid_change(
    real: Tensor, before: Tensor, after: Tensor, patients: tuple[Patients, Patients], resamples: Resamples
) -> Value:
    """KID of ``after`` less KID of ``before``, below 0 where the images came nearer, with its interval.

    The two sets are one set of images, before and after something was done to each: the interval is that of
    the difference, in which most of what varies between images falls out.

    Args:
        real, before, after: features (N, D), (M, D) and (M, D).
        patients: of the real images and of the M.
        resamples: of the real images and the M as one (N + M).
    """
    owners = owners_of(*patients, (len(real), len(before)))
    parts = resamples.parts[: len(real)], resamples.parts[len(real) :]
    count = len(resamples.stratum_of_part)
    first, second = (Discrepancy.of(real, fake, owners, *parts, count) for fake in (before, after))
    return resamples.by_parts(lambda weights: second(weights) - first(weights))


class KernelSum:
    """The sums of kernel values over pairs of different patients, by the parts of the sets, block by block.

    Args:
        first, second: the part of each row (N,) and (M,), 0..P-1; one only for the pairs within a set.
        parts: P.
        owners: of the rows, see `common.metrics.nearest_neighbors.owners_of`; None for each its own.
    """

    def __init__(
        self,
        first: Tensor,
        second: Tensor | None,
        parts: int,
        owners: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.same = second is None
        self.first = _members(first, parts)  # (N, P)
        self.second = self.first if second is None else _members(second, parts)
        self.total = torch.zeros(parts, parts, dtype=torch.float64)
        counts = self.first.sum(0), self.second.sum(0)
        own = counts[0].diag() if self.same else torch.zeros(parts, parts, dtype=torch.float64)
        self.pairs = torch.outer(*counts) - (own if owners is None else self._owned(owners))

    def add(self, pairs: PairBlocks, block: Block) -> None:
        """Adds a block of pairs."""
        values = kernel_values(pairs, block)  # (R, C)
        sums = self.first[block.rows].T @ (values @ self.second[block.columns].to(values)).double()  # (P, P)
        self.total += sums + sums.T if block.mirrored else sums

    def mean(self, weights: Tensor) -> float:
        """The mean over the pairs where parts count ``weights`` (P,) times; NaN of no pairs."""
        weights = weights.double()
        pairs = float(weights @ self.pairs @ weights)
        return float(weights @ self.total @ weights) / pairs if pairs > 0 else math.nan

    def padded(self, parts: int) -> KernelSum:
        """The sums alone, with room for further parts; nothing can be added."""
        made = copy(self)
        room = (0, parts - len(self.total)) * 2
        made.total, made.pairs = (functional.pad(each, room) for each in (self.total, self.pairs))
        return made

    def _owned(self, owners: tuple[Tensor, Tensor]) -> Tensor:
        """How many pairs of one owner there are (P, P)."""
        count = max(int(each.max()) + 1 if len(each) else 0 for each in owners)
        sums = [
            torch.zeros(count, members.shape[1], dtype=torch.float64).index_add_(0, owner, members)
            for owner, members in zip(owners, (self.first, self.second), strict=True)
        ]
        return sums[0].T @ sums[1]


@dataclass(frozen=True)
class Discrepancy:
    """The discrepancy of two sets as a function of how often each of their parts counts."""

    within_real: KernelSum
    within_fake: KernelSum
    between: KernelSum

    def __call__(self, weights: Tensor) -> float:
        """Of weights (P,); see `kid`."""
        return self.within_real.mean(weights) + self.apart(weights)

    def apart(self, weights: Tensor) -> float:
        """Without what the real images have among themselves: two sets' difference does not need it."""
        return self.within_fake.mean(weights) - 2 * self.between.mean(weights)

    def size(self, weights: Tensor) -> float:
        """Of what `apart` is the difference of."""
        return abs(self.within_fake.mean(weights)) + 2 * abs(self.between.mean(weights))

    @classmethod
    def of(
        cls,
        real: Tensor,
        fake: Tensor,
        owners: tuple[Tensor, Tensor],
        real_parts: Tensor,
        fake_parts: Tensor,
        parts: int,
    ) -> Discrepancy:
        """From features (N, D) and (M, D), their owners and parts (N,) and (M,)."""
        return cls(
            kernel_sum(real, None, (owners[0], owners[0]), real_parts, None, parts),
            kernel_sum(fake, None, (owners[1], owners[1]), fake_parts, None, parts),
            kernel_sum(real, fake, owners, real_parts, fake_parts, parts),
        )


def kernel_sum(
    first: Tensor,
    second: Tensor | None,
    owners: tuple[Tensor, Tensor],
    first_parts: Tensor,
    second_parts: Tensor | None,
    parts: int,
) -> KernelSum:
    """`KernelSum` of all pairs, in float64."""
    total = KernelSum(first_parts, second_parts, parts, owners)
    pairs = PairBlocks(first, second, torch.float64, owners)
    for block in pairs:
        total.add(pairs, block)
    return total


def kernel_values(pairs: PairBlocks, block: Block) -> Tensor:
    """The kernel values (R, C) of the current block, 0 for pairs that are left out; gone with the next."""
    values = pairs.originals(block).div_(pairs.dimension).add_(1)
    cubes = torch.mul(values, values, out=pairs.scratch("kernel", block)).mul_(values)
    return left_out(cubes, block, 0)


def _members(parts: Tensor, count: int) -> Tensor:
    """1 where a row (N,) belongs to a part: (N, P) float64."""
    return functional.one_hot(parts, count).double()


BLUR = 1.0
"""Standard deviation of the Gaussian, in pixels."""
ROUNDING = 1e-9
"""Of the kernel's values; the blurred images are no farther off where their distance is below it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureSet:
    """Images as features.

    Attributes:
        features: (N, D).
        patients: one id an image, the same in two samples where it is the same patient; None for independent
            images.
        resamples: of the images.
    """

    features: Tensor
    patients: Patients
    resamples: Resamples

    def __len__(self) -> int:
        return len(self.features)


class KernelDistances:
    """KID and excess KID against held-out images; what concerns real images alone is computed once.

    Args:
        real: held-out images.
        reference: other patients' real images; None to leave out excess KID.
        blurred: features (N, D) of the held-out images, `blurred`.
    """

    def __init__(
        self, real: FeatureSet, reference: FeatureSet | None = None, blurred: Tensor | None = None
    ) -> None:
        self.real, self.reference = real, reference
        self.blurred = None if blurred is None else replace(real, features=blurred)
        self._warned = False

    def __call__(self, fake: FeatureSet) -> dict[str, Value]:
        """``kid`` and, where there is a reference, ``excess_kid`` of generated images."""
        both = self.real.resamples.join(fake.resamples)
        if self.reference is None or self.blurred is None:
            patients = (self.real.patients, fake.patients)
            return {"kid": kid_with_interval(self.real.features, fake.features, patients, both)}
        joined = self._base.join(fake.resamples)
        split = len(self.real) + len(self.reference)
        known = self._known(joined.parts[:split])
        count, parts = len(joined.stratum_of_part), joined.parts[split:]
        owners = owners_of(self.real.patients, fake.patients, (len(self.real), len(fake)))
        own = kernel_sum(fake.features, None, (owners[1], owners[1]), parts, None, count)
        between = kernel_sum(
            self.real.features, fake.features, owners, joined.parts[: len(self.real)], parts, count
        )
        real, reference, blur = known.padded(count)
        here = Discrepancy(real, own, between)
        kid = self._kid(both, joined, here, fake)

        def both_ends(weights: Tensor) -> tuple[float, float]:
            usual = reference.apart(weights)
            step = blur.apart(weights) - usual
            least = ROUNDING * (blur.size(weights) + reference.size(weights))
            return here.apart(weights) - usual, 0.0 if abs(step) <= least else step

        excess = joined.quotient(both_ends)
        self._tell(both_ends(torch.ones(count, dtype=torch.float64))[1])
        return {"kid": kid, "excess_kid": replace(excess, n=len(fake))}

    @cached_property
    def _base(self) -> Resamples:
        assert self.reference is not None
        return self.real.resamples.join(self.reference.resamples)

    def _kid(self, both: Resamples, joined: Resamples, here: Discrepancy, fake: FeatureSet) -> Value:
        """From the sums of all three sets, as far as their parts are those of the two."""
        split = len(self.real) + len(self.reference or ())
        parts = torch.cat([joined.parts[: len(self.real)], joined.parts[split:]])
        places = torch.zeros(len(both.stratum_of_part), dtype=torch.int64)
        places[both.parts] = parts
        if not torch.equal(places[both.parts], parts):  # the reference's patients are in the fake set, too
            patients = (self.real.patients, fake.patients)
            return kid_with_interval(self.real.features, fake.features, patients, both)
        count = len(joined.stratum_of_part)

        def statistic(weights: Tensor) -> float:
            return here(torch.ones(count, dtype=torch.float64).index_copy_(0, places, weights))

        return both.by_parts(statistic)

    def _known(self, parts: Tensor) -> _RealSums:
        """Sums over real images alone, made anew only where the patients are parted differently."""
        found: _RealSums | None = getattr(self, "_held", None)
        if found is None or not torch.equal(found.parts, parts):
            assert self.reference is not None and self.blurred is not None
            found = self._held = _RealSums.of(self.real, self.reference, self.blurred, parts)
        return found

    def _tell(self, denominator: float) -> None:
        if denominator > 0 or self._warned or math.isnan(denominator):
            return
        self._warned = True
        logger.warning(
            f"no excess KID: to this extractor held-out images blurred by {BLUR:g} pixel are no farther from "
            f"held-out images than other patients' are (KID {denominator:+.3g}); take more patients or "
            "another extractor"
        )


@dataclass(frozen=True)
class _RealSums:
    """Of held-out images with themselves, of the reference and of the blurred images with them."""

    parts: Tensor
    real: KernelSum
    reference: Discrepancy
    blurred: Discrepancy

    @classmethod
    def of(cls, real: FeatureSet, reference: FeatureSet, blurred: FeatureSet, parts: Tensor) -> _RealSums:
        count, split = int(parts.max()) + 1, len(real)
        owners = owners_of(real.patients, reference.patients, (split, len(reference)))
        own = (owners[0], owners[0])
        features = real.features, reference.features, blurred.features
        here, there = parts[:split], parts[split:]
        within = kernel_sum(features[0], None, own, here, None, count)
        return cls(
            parts,
            within,
            Discrepancy(
                within,
                kernel_sum(features[1], None, (owners[1], owners[1]), there, None, count),
                kernel_sum(features[0], features[1], owners, here, there, count),
            ),
            Discrepancy(
                within,
                kernel_sum(features[2], None, own, here, None, count),
                kernel_sum(features[0], features[2], own, here, here, count),
            ),
        )

    def padded(self, count: int) -> tuple[KernelSum, Discrepancy, Discrepancy]:
        """With room for further parts."""
        sums = [self.real, self.reference.within_fake, self.reference.between]
        sums += [self.blurred.within_fake, self.blurred.between]
        real, *others = (each.padded(count) for each in sums)
        return real, Discrepancy(real, *others[:2]), Discrepancy(real, *others[2:])


def gaussian_blur(images: Tensor, sigma: float = BLUR) -> Tensor:
    """Images (N, 1, H, W) filtered with a Gaussian of ``sigma`` pixels; the rim is continued."""
    found = ndimage.gaussian_filter(images.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(found))
