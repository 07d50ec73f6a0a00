"""Train, validation and test: a patient's part follows from its name, whoever else is in the set."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from common.data.samples import Sample
from common.errors import UserError
from common.files import read_json, write_json

logger = logging.getLogger(__name__)
SPLITS = ("train", "val", "test")
LEAST = 0.75
"""Of its share of patients, that a part has at least."""
LEAST_PATIENTS = 3
"""In every part of a set of `MANY_PATIENTS`: with fewer there are no intervals."""
MANY_PATIENTS = 18  # three are a sixth of them
RULE = "hash 38750"
"""Goes into the hash and stands beside each model. Of many numbers this one brings the phantoms, and public
sets that the bundles are tested with, close to 70, 15 and 15 per cent."""


def split_by_patient(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    apart: Collection[str] = ("doctor",),
    where: str | os.PathLike[str] = "",
) -> dict[str, list[Sample]]:
    """Splits so that no patient (nor person with several scans) is in two parts.

    A hash of the patient's name and the seed says which part: it stays when other patients come or go, and
    the fractions are met as chance has it. Where this leaves a part empty, with less than `LEAST` of its
    share of patients, or with fewer than three of eighteen or more, those whose hash comes nearest move
    there, and one line says who; so for each of several sites, too, that has three patients or more.

    Args:
        samples: the whole set.
        fractions: shares of train, val, test, of patients.
        seed: another seed gives another split; the order of ``samples`` does not matter.
        apart: groups that are reported apart: they form splits of their own name and take no part in the
            others, unless the set holds nothing else.
        where: the set's folder, for messages.
    Raises:
        UserError: fewer than three patients, or fractions that are not positive.
    """
    groups, common = apart_and_common(samples, apart)
    shares = checked_shares(common, fractions)
    place = {sample.unit: drawn(sample.unit, seed) for sample in common}
    ends = (shares[0], shares[0] + shares[1], 1.0)
    part_of = {unit: next(n for n, end in enumerate(ends) if at < end) for unit, at in place.items()}
    moved: list[str] = []
    for units in _sites(common):
        moved += _fill(part_of, {unit: place[unit] for unit in units}, ends)
    if moved:
        logger.warning("%s: %s, or that part would lack patients", where or _where(samples), "; ".join(moved))
    parts = {name: [s for s in common if part_of[s.unit] == n] for n, name in enumerate(SPLITS)}
    return {**parts, **groups}


def drawn(name: str, seed: int, purpose: str = RULE) -> float:
    """A number from 0 to 1 that follows from a patient's name, the seed and what it is for."""
    digest = hashlib.sha256(f"{purpose.removeprefix('hash ')}/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def held_out(names: Collection[str], share: float, seed: int, purpose: str, least: int = 1) -> list[str]:
    """A share of patients, sorted; who it is stays when others come or go.

    Those whose number (`drawn`) is below the share. Where these are fewer than ``least``, or one of the sides
    has less than `LEAST` of its share or nobody, whoever comes nearest goes over.
    """
    order = sorted(set(names), key=lambda name: (drawn(name, seed, purpose), name))
    count = sum(drawn(name, seed, purpose) < share for name in order)
    lowest = max(least, int(LEAST * share * len(order)))
    highest = max(len(order) - max(1, int(LEAST * (1 - share) * len(order))), min(least, len(order) - 1))
    return sorted(order[: max(min(max(count, lowest), highest), 0)])


def apart_and_common(
    samples: Sequence[Sample], apart: Collection[str]
) -> tuple[dict[str, list[Sample]], list[Sample]]:
    """The groups that are reported apart, by name, and all other samples; no groups where nothing else is."""
    own = sorted({sample.group for sample in samples} & set(apart))
    common = [sample for sample in samples if sample.group not in own]
    if not common:
        return {}, list(samples)
    return {group: [sample for sample in samples if sample.group == group] for group in own}, common


def checked_shares(samples: Sequence[Sample], fractions: Sequence[float]) -> list[float]:
    """The fractions of train, val and test, of a sum of 1.

    Raises:
        UserError: one is not positive, or there are fewer than three patients.
    """
    if min(fractions) <= 0:
        raise UserError(f"fractions {tuple(fractions)}: train, val and test must all be above 0")
    count = len({sample.unit for sample in samples})
    if count < len(SPLITS):
        raise UserError(
            f"{_where(samples)}: {count} patients cannot be split into train, val and test; bring at least "
            "3, or say with --patient_pattern whose the files are"
        )
    return [fraction / sum(fractions) for fraction in fractions]


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


def _sites(samples: Sequence[Sample]) -> list[list[str]]:
    """The persons of each site with three or more, then all of them."""
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        counts.setdefault(sample.unit, Counter())[sample.site] += 1
    of_site: dict[str, list[str]] = {}
    for unit, sites in sorted(counts.items()):
        of_site.setdefault(max(sorted(sites), key=lambda site: sites[site]), []).append(unit)
    several = [units for _, units in sorted(of_site.items()) if len(units) >= len(SPLITS)]
    return [*(several if len(of_site) > 1 else []), sorted(counts)]


def _fill(part_of: dict[str, int], place: Mapping[str, float], ends: Sequence[float]) -> list[str]:
    """Moves the nearest patients into parts that lack some; who went where, in words."""
    starts, moved = (0.0, *ends[:-1]), []
    due = [LEAST * len(place) * (end - start) for start, end in zip(starts, ends, strict=True)]
    fewest = LEAST_PATIENTS if len(place) >= MANY_PATIENTS else 1
    least = [min(max(fewest, int(count)), len(place) - 2) for count in due]
    counts = Counter(part_of[unit] for unit in place)
    for part, (start, end) in enumerate(zip(starts, ends, strict=True)):
        while counts[part] < least[part]:
            free = [unit for unit in place if counts[part_of[unit]] > least[part_of[unit]]]
            unit = min(free, key=lambda name: (max(start - place[name], place[name] - end), name))
            moved.append(f"patient {unit} moves from {SPLITS[part_of[unit]]} to {SPLITS[part]}")
            counts.subtract([part_of[unit]])
            counts[part] += 1
            part_of[unit] = part
    return moved


def _where(samples: Sequence[Sample]) -> str:
    return str(samples[0].image.parent) if samples else "the data set"
