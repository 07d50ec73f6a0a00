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
from common.metrics.kid import Patients
from common.metrics.nearest_neighbors import TIE, find_nearest, number_owners, squared_distance_rows

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
        """Returns the values by metric, in the order in which metrics are shown."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def means(self) -> dict[str, float]:
        """Computes the four metrics; all but density are at most 1."""
        return {name: float(values.mean()) for name, values in self.named().items()}

    def intervals(self, real: Resamples, fake: Resamples) -> dict[str, Value]:
        """Computes the metrics with intervals over patients (or images), given the balls of the whole sets.

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
    real: Tensor, fake: Tensor, k: int = NEIGHBOURS, patients: tuple[Patients, Patients] = (None, None)
) -> Manifolds:
    """Computes precision, recall, density and coverage from features.

    Balls are closed for precision and recall (Kynkaanniemi et al. 2019, equation 1) and open for density and
    coverage, as in the published code; two equal sets then have a density of 1.

    Args:
        real, fake: (N, D) and (M, D), more than ``k`` rows each.
        k: the neighbour (of another patient) that a ball reaches to.
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
    real_radii, fake_radii = (
        find_nearest(features, None, k, (owner, owner))[0][:, -1].square()
        for features, owner in zip((real, fake), owners, strict=True)
    )
    precision, density = torch.zeros(len(fake)).bool(), torch.zeros(len(fake)).double()
    recall, coverage = torch.zeros(len(real)).bool(), torch.zeros(len(real)).bool()
    for rows, squared in squared_distance_rows(real, fake, owners):
        balls = real_radii[rows, None]
        inside = squared < balls * (1 - TIE)  # (R, M)
        density += inside.sum(0)
        coverage[rows] = inside.any(1)
        precision |= (squared <= balls * (1 + TIE)).any(0)
        recall[rows] = (squared <= fake_radii * (1 + TIE)).any(1)
    return Manifolds(precision.double(), recall.double(), density / k, coverage.double())


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
