"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) of generated images.

Around each image's features lies a ball that reaches to its k-th nearest neighbour of the same set. Precision
and density say how well generated images keep to the real ones' balls, recall and coverage how many of the
real images they reach. Slices of one patient do not count as neighbours, or a ball would end at the next
slice; nor is a real image reached by what was made from its own patient's mask. Density counts balls, so one
outlier among the real images does not make it large; coverage uses the real images' balls alone, so outliers
among the generated ones do not help it. All depend on the number of images: compare values of equal numbers
only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, Value
from common.metrics.kid import Discrepancy, KernelSum, Patients
from common.metrics.nearest_neighbors import Block, PairBlocks, Visit, find_nearest_squared, owners_of

NEIGHBOURS = 5  # Naeem et al. 2020; Kynkaanniemi et al. 2019 take 3 with many more images


@dataclass(frozen=True)
class Manifolds:
    """What each image has to say; the metrics are means over images.

    Attributes:
        precision: (M,) 1 where a generated image lies in a real image's ball, else 0.
        density: (M,) how many real images' balls it lies in, as a share of k.
        recall: (N,) 1 where a real image lies in a generated image's ball.
        coverage: (N,) 1 where a real image's ball holds a generated image.
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor

    def means(self) -> dict[str, float]:
        """The four metrics by name: at most 1, but for density."""
        return {name: float(values.mean()) for name, values in self.named().items()}

    def intervals(self, real: Resamples, fake: Resamples) -> dict[str, Value]:
        """The four metrics with intervals over the patients (or images) whose places are judged.

        The balls stay those of the whole sets: the intervals are for these balls.

        Args:
            real, fake: resamples of the N real and the M generated images.
        """
        resamples = {"precision": fake, "recall": real, "density": fake, "coverage": real}
        return {
            name: resamples[name].share(values) if name != "density" else resamples[name].mean(values)
            for name, values in self.named().items()
        }

    def named(self) -> dict[str, Tensor]:
        """By the metrics' names, in the order in which they are shown."""
        names = "precision", "recall", "density", "coverage"
        return {name: getattr(self, name) for name in names}


def prdc(
    real: Tensor,
    fake: Tensor,
    k: int = NEIGHBOURS,
    also: tuple[Visit, Visit, Visit] | None = None,
    patients: tuple[Patients, Patients] = (None, None),
) -> Manifolds:
    """Precision, recall, density and coverage of features.

    Balls of precision and recall are closed (Kynkaanniemi et al. 2019, equation 1), those of density and
    coverage open, as in the published code: two equal sets then have a density of 1.

    Args:
        real, fake: (N, D) and (M, D), more than ``k`` rows each.
        k: which neighbour of another patient a ball reaches to.
        also: called with every block of the pairs within the real, within the generated and between both.
        patients: of both sets, as for `common.metrics.kid.kid`.
    Raises:
        UserError: too few images.
    Returns:
        All NaN where a feature was NaN or infinite, or where an image has fewer than ``k`` of other patients
        beside it, see `too_few_others`.
    """
    owners = owners_of(*patients, (len(real), len(fake)))
    finite = bool(real.isfinite().all() and fake.isfinite().all())
    if not finite or any(_alone(owner, k) for owner in owners):
        return Manifolds(*(torch.full((len(of),), torch.nan).double() for of in (fake, real, fake, real)))
    within_real, within_fake, between = also or (None, None, None)
    real_radii = find_nearest_squared(real, None, k, within_real, _alike(owners[0]))[0][:, -1]
    fake_radii = find_nearest_squared(fake, None, k, within_fake, _alike(owners[1]))[0][:, -1]
    balls = _Balls(real_radii, fake_radii)
    pairs = PairBlocks(real, fake, owners=owners)
    for block in pairs:
        balls.add(pairs, block)
        if between is not None:
            between(pairs, block)
    return balls.manifolds(k)


def kid_prdc(
    real: Tensor, fake: Tensor, k: int = NEIGHBOURS, patients: tuple[Patients, Patients] = (None, None)
) -> tuple[float, Manifolds]:
    """KID and `prdc` from one walk over the pairs. KID rests on float32 kernels here, with sums in float64.

    Args:
        real, fake: features (N, D) and (M, D), more than ``k`` rows each.
        patients: of both sets, as for `common.metrics.kid.kid`.
    """
    owners = owners_of(*patients, (len(real), len(fake)))
    first, second = (torch.zeros(len(part), dtype=torch.int64) for part in (real, fake))
    sums = Discrepancy(
        KernelSum(first, None, 1, (owners[0], owners[0])),
        KernelSum(second, None, 1, (owners[1], owners[1])),
        KernelSum(first, second, 1, owners),
    )
    manifolds = prdc(real, fake, k, (sums.within_real.add, sums.within_fake.add, sums.between.add), patients)
    return sums(torch.ones(1)), manifolds


def _alike(owner: Tensor) -> tuple[Tensor, Tensor] | None:
    """For the pairs within a set; None, which is faster, where each image is its own patient's."""
    return (owner, owner) if len(owner.unique()) < len(owner) else None


def too_few_others(patients: Sequence[str], k: int = NEIGHBOURS) -> str:
    """Why there is no `prdc` of these patients' images, one of whom has nearly all; empty where there is."""
    counts = Counter(patients)
    most = max(counts.values(), default=0)
    if len(patients) - most >= k:
        return ""
    return (
        f"{len(patients)} images, {most} of them of one patient: too few of others for recall and coverage, "
        f"which take {k} neighbours; they are left out"
    )


def _alone(owner: Tensor, k: int) -> bool:
    """Whether a set that has enough images has too few of other patients."""
    return len(owner) > k and bool(too_few_others([str(number) for number in owner.tolist()], k))


class _Balls:
    """Who lies in whose ball, gathered over blocks of (real, generated) pairs.

    Args:
        real, fake: squared radii (N,) and (M,) float64.
    """

    def __init__(self, real: Tensor, fake: Tensor) -> None:
        self.real, self.fake = real, fake
        self.precision, self.recall = torch.zeros(len(fake)).bool(), torch.zeros(len(real)).bool()
        self.density, self.coverage = torch.zeros(len(fake)), torch.zeros(len(real)).bool()

    def add(self, pairs: PairBlocks, block: Block) -> None:
        rows, columns, squared = block.rows, block.columns, pairs.lower(block)
        margins = _margins(pairs, block, squared, self.real[rows, None])
        self.precision[columns] |= margins.amin(0) <= 0
        self.coverage[rows] |= margins.amin(1) < 0
        self.density[columns] += torch.lt(margins, 0, out=pairs.scratch("inside", block)).sum(0)
        margins = _margins(pairs, block, squared, self.fake[columns])
        self.recall[rows] |= margins.amin(1) <= 0

    def manifolds(self, k: int) -> Manifolds:
        precision, recall, coverage = (held.double() for held in (self.precision, self.recall, self.coverage))
        return Manifolds(precision, recall, self.density.double() / k, coverage)


def _margins(pairs: PairBlocks, block: Block, lower: Tensor, radii: Tensor) -> Tensor:
    """Squared distances less squared radii, of the right sign: below 0 inside a ball, 0 on its rim.

    Args:
        lower: what `PairBlocks.lower` gave (R, C).
        radii: squared (R, 1) or (C,) float64.
    """
    margins = torch.sub(lower, radii.to(lower), out=pairs.scratch("margins", block))
    unsure = pairs.slack(block) + float(radii.max()) * 2 * torch.finfo(lower.dtype).eps
    distances = torch.abs(margins, out=pairs.scratch("rim", block))
    if distances.min() <= unsure:
        rows, columns = (distances <= unsure).nonzero(as_tuple=True)
        exact = pairs.exact(rows + block.rows.start, columns + block.columns.start)
        margins[rows, columns] = (exact - radii.expand(lower.shape)[rows, columns]).to(margins)
    return margins
