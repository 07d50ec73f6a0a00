"""KID and excess KID: how far generated images are from held-out real ones, in steps that can be compared.

Excess KID is (model - real against real) / (blurred - real against real), all three of them KID against the
held-out images: 0 for images that are as real as other patients', 1 for images that are as far off as the
held-out images themselves blurred with a Gaussian of 1 pixel. KID by itself depends on extractor, window and
organ; these steps do so less.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.kid import Discrepancy, KernelSum, Patients, kernel_sum, kid_with_interval
from common.metrics.pairs import owners_of

BLUR = 1.0
"""Standard deviation of the Gaussian, in pixels."""
ROUNDING = 1e-9
"""Of the kernel's values; the blurred images are no farther off where their distance is below it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
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

    def __init__(self, real: Sample, reference: Sample | None = None, blurred: Tensor | None = None) -> None:
        self.real, self.reference = real, reference
        self.blurred = None if blurred is None else replace(real, features=blurred)
        self._warned = False

    def __call__(self, fake: Sample) -> dict[str, Value]:
        """``kid`` and, where there is a reference, ``excess_kid`` of generated images."""
        both = self.real.resamples.beside(fake.resamples)
        if self.reference is None or self.blurred is None:
            patients = (self.real.patients, fake.patients)
            return {"kid": kid_with_interval(self.real.features, fake.features, patients, both)}
        joined = self._base.beside(fake.resamples)
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
        return self.real.resamples.beside(self.reference.resamples)

    def _kid(self, both: Resamples, joined: Resamples, here: Discrepancy, fake: Sample) -> Value:
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
    def of(cls, real: Sample, reference: Sample, blurred: Sample, parts: Tensor) -> _RealSums:
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


def blurred(images: Tensor, sigma: float = BLUR) -> Tensor:
    """Images (N, 1, H, W) filtered with a Gaussian of ``sigma`` pixels; the rim is continued."""
    found = ndimage.gaussian_filter(images.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(found))
