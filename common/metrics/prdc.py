"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) of generated images.

Every image has a ball in feature space that reaches to its k-th nearest neighbour in the same set. Precision
and density say how well generated images stay inside the real images' balls, recall and coverage how many
real images they reach. Density counts balls, so that a single real outlier does not make it large; coverage
uses the real images' balls only, so that generated outliers do not help. Slices of one patient are no
neighbours, or a ball would end at the next slice; nor does a generated image reach the patient whose mask it
was made from. All four depend on the number of images: compare only sets of equal size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.kid import FakeTerms, KernelSum, Patients
from common.metrics.nearest_neighbors import Block, PairBlocks, Visit, find_nearest_squared, number_owners

NEIGHBOURS = 5  # Naeem et al. 2020; Kynkaanniemi et al. 2019 take 3 with many more images


@dataclass(frozen=True)
class Manifolds:
    """The four metrics image by image; the metrics are the means.

    Attributes:
        precision: (M,) 1 where a generated image lies in a real image's ball, else 0.
        recall: (N,) 1 where a real image lies in a generated image's ball, else 0.
        density: (M,) number of real images' balls that a generated image lies in, divided by k.
        coverage: (N,) 1 where a real image's ball holds a generated image, else 0.
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor

    def named(self) -> dict[str, Tensor]:
        """The values by metric, in the order in which metrics are shown."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def means(self) -> dict[str, float]:
        """The four metrics; all but density are at most 1."""
        return {name: float(values.mean()) for name, values in self.named().items()}

    def intervals(self, real: Resamples, fake: Resamples) -> dict[str, Value]:
        """The four metrics with intervals over patients (or images), given the balls of the whole sets.

        Args:
            real, fake: resamples of the N real and the M generated images.
        """
        return {
            "precision": fake.share(self.precision),
            "recall": real.share(self.recall),
            "density": fake.mean(self.density),
            "coverage": real.share(self.coverage),
        }


def prdc(
    real: Tensor,
    fake: Tensor,
    k: int = NEIGHBOURS,
    visits: tuple[Visit | None, Visit | None, Visit | None] = (None, None, None),
    patients: tuple[Patients, Patients] = (None, None),
) -> Manifolds:
    """Computes precision, recall, density and coverage from features.

    Balls are closed for precision and recall (Kynkaanniemi et al. 2019, equation 1) and open for density and
    coverage, as in the published code; two equal sets then have a density of 1.

    Args:
        real, fake: (N, D) and (M, D), more than ``k`` rows each.
        k: the neighbour (of another patient) that a ball reaches to.
        visits: called with every block of pairs within the real, within the generated and between both sets.
        patients: of both sets, as for `common.metrics.kid.kid`.
    Returns:
        Values per image; all NaN if a feature is not finite or some image has fewer than ``k`` images of
        other patients, see `too_few_others`.
    Raises:
        UserError: ``k`` or fewer images.

    Example:
        >>> real, fake = torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([[1.0], [1.5], [30.0]])
        >>> prdc(real, fake, k=1).precision.tolist()
        [1.0, 1.0, 0.0]
    """
    owners = number_owners(*patients, (len(real), len(fake)))
    finite = bool(real.isfinite().all() and fake.isfinite().all())
    if not finite or any(len(owner) > k and too_few_others(owner.tolist(), k) for owner in owners):
        return Manifolds(*(torch.full((len(of),), torch.nan).double() for of in (fake, real, fake, real)))
    radii = [
        find_nearest_squared(features, None, k, visit, _shared(owner))[0][:, -1]
        for features, visit, owner in zip((real, fake), visits[:2], owners, strict=True)
    ]
    balls = _Balls(*radii)
    pairs = PairBlocks(real, fake, owners=owners)
    for block in pairs:
        balls.add(pairs, block)
        if visits[2] is not None:
            visits[2](pairs, block)
    return balls.manifolds(k)


def kid_prdc(
    real: Tensor, fake: Tensor, k: int = NEIGHBOURS, patients: tuple[Patients, Patients] = (None, None)
) -> tuple[float, Manifolds]:
    """Computes KID, from float32 kernels summed in float64, and `prdc` in one pass over the pairs.

    Args:
        real, fake: features (N, D) and (M, D), more than ``k`` rows each.
        patients: of both sets, as for `common.metrics.kid.kid`.
    """
    owners = number_owners(*patients, (len(real), len(fake)))
    first, second = (torch.zeros(len(part), dtype=torch.int64) for part in (real, fake))
    within_real = KernelSum(first, None, 1, (owners[0], owners[0]))
    within_fake = KernelSum(second, None, 1, (owners[1], owners[1]))
    between = KernelSum(first, second, 1, owners)
    manifolds = prdc(real, fake, k, (within_real.add, within_fake.add, between.add), patients)
    once = torch.ones(1)
    return within_real.mean(once) + FakeTerms(within_fake, between)(once), manifolds


def too_few_others(patients: Sequence[object], k: int = NEIGHBOURS) -> str:
    """Explains why `prdc` is undefined if one patient has nearly all images; empty if it is defined.

    Example:
        >>> too_few_others(["a"] * 20 + ["b"] * 4)[:38]
        '24 images, 20 of them of one patient: '
    """
    most = max(Counter(patients).values(), default=0)
    if len(patients) - most >= k:
        return ""
    return (
        f"{len(patients)} images, {most} of them of one patient: too few of others for recall and coverage, "
        f"which take {k} neighbours; they are left out"
    )


def _shared(owner: Tensor) -> tuple[Tensor, Tensor] | None:
    """Owners for the pairs within a set; None, which is faster, if every image has its own patient."""
    return (owner, owner) if len(owner.unique()) < len(owner) else None


class _Balls:
    """Counts who lies in whose ball, block by block of (real, generated) pairs.

    Args:
        real, fake: squared radii (N,) and (M,) float64.
    """

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        self.real, self.fake = real, fake
        self.precision, self.recall = torch.zeros(len(fake)).bool(), torch.zeros(len(real)).bool()
        self.density, self.coverage = torch.zeros(len(fake)), torch.zeros(len(real)).bool()

    def add(self, pairs: PairBlocks, block: Block) -> None:
        rows, columns, bounds = block.rows, block.columns, pairs.lower_bounds(block)
        margins = _margins(pairs, block, bounds, self.real[rows, None])
        self.precision[columns] |= margins.amin(0) <= 0
        self.coverage[rows] |= margins.amin(1) < 0
        self.density[columns] += torch.lt(margins, 0, out=pairs.buffer("inside", block)).sum(0)
        margins = _margins(pairs, block, bounds, self.fake[columns])
        self.recall[rows] |= margins.amin(1) <= 0

    def manifolds(self, k: int) -> Manifolds:
        precision, recall, coverage = (each.double() for each in (self.precision, self.recall, self.coverage))
        return Manifolds(precision, recall, self.density.double() / k, coverage)


def _margins(pairs: PairBlocks, block: Block, bounds: Tensor, radii: Tensor) -> Tensor:
    """Squared distances minus squared radii with the right sign: below 0 inside a ball, 0 on its surface.

    Args:
        bounds: from `PairBlocks.lower_bounds` (R, C).
        radii: squared (R, 1) or (C,) float64.
    """
    margins = torch.sub(bounds, radii.to(bounds), out=pairs.buffer("margins", block))
    uncertain = pairs.slack(block) + float(radii.max()) * 2 * torch.finfo(bounds.dtype).eps
    distances = torch.abs(margins, out=pairs.buffer("surface", block))
    if distances.min() <= uncertain:
        rows, columns = (distances <= uncertain).nonzero(as_tuple=True)
        exact = pairs.exact(rows + block.rows.start, columns + block.columns.start)
        margins[rows, columns] = (exact - radii.expand(bounds.shape)[rows, columns]).to(margins)
    return margins
