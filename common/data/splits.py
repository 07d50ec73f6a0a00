"""Train, validation and test: by patient, seeded, the same for any order of the files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from common.data.samples import Sample
from common.errors import UserError
from common.files import read_json, write_json
from common.random import generator

SPLITS = ("train", "val", "test")
# Patients are few and of unequal size: the best of this many seeded orders comes close to the fractions.
ORDERS = 200


def split_by_patient(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    apart: Collection[str] = ("doctor",),
) -> dict[str, list[Sample]]:
    """Splits so that no patient (nor person with several scans) is in two parts.

    Args:
        samples: the whole set.
        fractions: shares of train, val, test, counted in slices and met as well as whole patients allow.
        seed: another seed gives another split; the order of ``samples`` does not matter.
        apart: groups that are reported apart: they form splits of their own name and take no part in the
            others, unless the set holds nothing else.
    Raises:
        UserError: fewer than three patients, or fractions that are not positive.
    """
    own = {sample.group for sample in samples} & set(apart)
    common = [sample for sample in samples if sample.group not in own]
    if not common:
        own, common = set(), list(samples)
    parts = _split(common, fractions, seed)
    for group in sorted(own):
        parts[group] = [sample for sample in samples if sample.group == group]
    return parts


def write_splits(path: str | os.PathLike[str], splits: Mapping[str, Sequence[Sample]]) -> None:
    """Writes ``splits.json``: for each split its patients, sorted."""
    write_json(path, {name: sorted({sample.patient for sample in part}) for name, part in splits.items()})


def read_splits(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Reads ``splits.json``: split name to patients.

    Raises:
        UserError: unreadable, of another form, an empty split, a patient in two splits.
    """
    table = read_json(path)
    listed = isinstance(table, dict) and all(isinstance(part, list) for part in table.values())
    if not listed or any(not table.get(name) for name in SPLITS):
        raise UserError(f"{path}: needs lists of patients under train, val and test; delete it to split anew")
    times = Counter(patient for part in table.values() for patient in set(part))
    twice = sorted(patient for patient, count in times.items() if count > 1)
    if twice:
        raise UserError(f"{path}: patient {twice[0]} is in two splits; keep each patient in one")
    return table


def assign(samples: Sequence[Sample], table: Mapping[str, Sequence[str]]) -> dict[str, list[Sample]]:
    """The samples of each split, as `read_splits` lists the patients.

    Raises:
        UserError: a sample's patient is in no split.
    """
    split_of = {patient: name for name, part in table.items() for patient in part}
    parts: dict[str, list[Sample]] = {name: [] for name in table}
    for sample in samples:
        if sample.patient not in split_of:
            raise UserError(
                f"{sample.image}: patient {sample.patient} is in no split of splits.json; "
                "add it or delete the file"
            )
        parts[split_of[sample.patient]].append(sample)
    return parts


def _split(
    samples: Sequence[Sample], fractions: tuple[float, float, float], seed: int
) -> dict[str, list[Sample]]:
    if min(fractions) <= 0:
        raise UserError(f"fractions {fractions}: train, val and test must all be above 0")
    sites: dict[str, Counter[str]] = {}
    for sample in samples:
        sites.setdefault(sample.unit, Counter())[sample.site] += 1
    if len(sites) < len(SPLITS):
        raise UserError(
            f"{samples[0].image.parent if samples else 'the data set'}: {len(sites)} patients cannot be "
            "split into train, val and test; bring at least 3"
        )
    shares = [fraction / sum(fractions) for fraction in fractions]
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
