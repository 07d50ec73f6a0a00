"""How the split was drawn before it followed from names: for models that tell nothing of theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from common.data.samples import Sample
from common.data.splits import SPLITS, apart_and_common, checked_shares
from common.random import generator

ORDERS = 200


def earlier_split(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float],
    seed: int = 0,
    apart: Collection[str] = ("doctor",),
) -> dict[str, list[Sample]]:
    """As `common.data.splits.split_by_patient`, by the draw of earlier versions.

    The best of `ORDERS` seeded orders of the whole set, by slices: one patient more or less changes it all.

    Raises:
        UserError: fewer than three patients, or fractions that are not positive.
    """
    groups, common = apart_and_common(samples, apart)
    return {**_split(common, fractions, seed), **groups}


def _split(
    samples: Sequence[Sample], fractions: tuple[float, float, float], seed: int
) -> dict[str, list[Sample]]:
    sites: dict[str, Counter[str]] = {}
    for sample in samples:
        sites.setdefault(sample.unit, Counter())[sample.site] += 1
    shares = checked_shares(samples, fractions)
    candidates = [_assignment(sites, shares, seed, order) for order in range(ORDERS)]
    best = min(candidates, key=lambda candidate: _distance(candidate, sites, shares))
    return {name: [sample for sample in samples if best[sample.unit] == name] for name in SPLITS}


def _assignment(
    sites: Mapping[str, Counter[str]], shares: Sequence[float], seed: int, order: int
) -> dict[str, str]:
    """One seeded order of the patients, each put where most is lacking; no split stays empty."""
    patients = sorted(sites)
    counts, assignment = [0] * len(SPLITS), {}
    for position, index in enumerate(generator(seed, "split", order).permutation(len(patients))):
        empty = [part for part in range(len(SPLITS)) if counts[part] == 0]
        choices = empty if len(patients) - position <= len(empty) else range(len(SPLITS))
        part = min(choices, key=lambda choice: counts[choice] / shares[choice])
        assignment[patients[index]] = SPLITS[part]
        counts[part] += sites[patients[index]].total()
    return assignment


def _distance(
    assignment: Mapping[str, str], sites: Mapping[str, Counter[str]], shares: Sequence[float]
) -> float:
    """Slices too many or too few, summed over splits and sites, in all and for each site."""
    names = sorted({site for counts in sites.values() for site in counts})
    # (patients, sites) slices, and (splits, patients) membership
    slices = np.array([[sites[patient][name] for name in names] for patient in sorted(sites)], dtype=float)
    member = np.array(
        [[assignment[patient] == split for patient in sorted(sites)] for split in SPLITS], dtype=float
    )
    lack = member @ slices - np.outer(shares, slices.sum(axis=0))  # (splits, sites)
    return float(np.abs(lack).sum() + np.abs(lack.sum(axis=1)).sum())
