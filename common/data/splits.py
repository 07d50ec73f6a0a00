"""Splits into train, validation and test by patient: a patient's part follows from a hash of the name."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from common.data.patients import SPLITS_FILE
from common.data.samples import Sample
from common.errors import UserError
from common.files import read_json, write_json
from common.rng import make_rng
from common.training.distributed import is_main

logger = logging.getLogger(__name__)


SPLITS = ("train", "val", "test")
LEAST = 0.75
"""Each part gets at least this much of its share of patients."""
LEAST_PATIENTS = 3
"""Least number of patients in each part of a set of `MANY_PATIENTS`: fewer have no confidence interval."""
MANY_PATIENTS = 18  # three are a sixth of them
RULE = "hash 38750"
"""Name of the rule: it enters the hash and is stored with each model. The number was chosen so that the
phantoms and the public sets of the tests are split close to 70, 15 and 15 per cent."""


def split_by_patient(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    apart: Collection[str] = ("doctor",),
    where: str | os.PathLike[str] = "",
) -> dict[str, list[Sample]]:
    """Splits a data set so that no patient (nor person with several scans) is in two parts.

    A hash of the patient's name and the seed decides the part, so it stays the same when other patients come
    or go, and the fractions are met on average. Where a part would be empty, would have less than `LEAST` of
    its share, or fewer than three of eighteen or more patients, the patients with the nearest hashes move
    there, and one line names them. The same is done for each site that has three patients or more.

    Args:
        samples: the whole set.
        fractions: shares of train, val, test, of patients.
        seed: another seed gives another split; the order of ``samples`` does not matter.
        apart: groups that are reported apart: they form splits of their own name and take no part in the
            others, unless the set holds nothing else.
        where: the set's folder, for messages.
    Raises:
        UserError: fewer than three patients, or fractions that are not positive.

    Example:
        >>> samples = [Sample(Path(f"case{n}.png"), None, patient=f"case{n}") for n in range(200)]
        >>> {name: len(part) for name, part in split_by_patient(samples).items()}
        {'train': 136, 'val': 38, 'test': 26}
    """
    groups, common = apart_and_common(samples, apart)
    shares = checked_shares(common, fractions, where)
    position = {sample.unit: drawn(sample.unit, seed) for sample in common}
    ends = (shares[0], shares[0] + shares[1], 1.0)
    part_of = {unit: next(n for n, end in enumerate(ends) if at < end) for unit, at in position.items()}
    moved: list[str] = []
    for units in _sites(common):
        moved += _fill(part_of, {unit: position[unit] for unit in units}, ends)
    if moved:
        logger.warning("%s: %s, or that part would lack patients", where or _where(samples), "; ".join(moved))
    parts = {name: [s for s in common if part_of[s.unit] == n] for n, name in enumerate(SPLITS)}
    return {**parts, **groups}


def drawn(name: str, seed: int, purpose: str = RULE) -> float:
    """Returns a number in [0, 1) that follows from a patient's name, the seed and the purpose alone.

    Example:
        >>> drawn("case7", seed=0) == drawn("case7", seed=0) != drawn("case7", seed=1)
        True
    """
    digest = hashlib.sha256(f"{purpose.removeprefix('hash ')}/{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def held_out(names: Collection[str], share: float, seed: int, purpose: str, least: int = 1) -> list[str]:
    """Chooses a share of the patients; the choice stays the same when other patients come or go.

    Patients whose number (`drawn`) is below the share are chosen. Where these are fewer than ``least``, or
    either side has less than `LEAST` of its share or nobody, the patients with the nearest numbers change
    sides.

    Returns:
        The chosen patients, sorted.

    Example:
        >>> len(held_out([f"case{n}" for n in range(200)], share=0.25, seed=0, purpose="enhancer"))
        50
    """
    order = sorted(set(names), key=lambda name: (drawn(name, seed, purpose), name))
    count = sum(drawn(name, seed, purpose) < share for name in order)
    lowest = max(least, int(LEAST * share * len(order)))
    highest = max(len(order) - max(1, int(LEAST * (1 - share) * len(order))), min(least, len(order) - 1))
    return sorted(order[: max(min(max(count, lowest), highest), 0)])


def apart_and_common(
    samples: Sequence[Sample], apart: Collection[str]
) -> tuple[dict[str, list[Sample]], list[Sample]]:
    """Returns the groups that are reported apart, by name, and all other samples.

    A set that holds nothing but such groups has none that are reported apart.
    """
    own = sorted({sample.group for sample in samples} & set(apart))
    common = [sample for sample in samples if sample.group not in own]
    if not common:
        return {}, list(samples)
    return {group: [sample for sample in samples if sample.group == group] for group in own}, common


def checked_shares(
    samples: Sequence[Sample], fractions: Sequence[float], where: str | os.PathLike[str] = ""
) -> list[float]:
    """Returns the fractions of train, val and test, scaled to a sum of 1.

    Raises:
        UserError: one is not positive, or there are fewer than three patients.
    """
    if min(fractions) <= 0:
        raise UserError(f"fractions {tuple(fractions)}: train, val and test must all be above 0")
    count = len({sample.unit for sample in samples})
    if count < len(SPLITS):
        raise UserError(
            f"{where or _where(samples)}: {count} patients cannot be split into train, val and test; bring "
            "at least 3, or say with --patient_pattern whose the files are"
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
    split_of = _part_of(table)
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
    """Returns the persons of each site that has three or more, then all persons."""
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        counts.setdefault(sample.unit, Counter())[sample.site] += 1
    of_site: dict[str, list[str]] = {}
    for unit, sites in sorted(counts.items()):
        of_site.setdefault(max(sorted(sites), key=lambda site: sites[site]), []).append(unit)
    several = [units for _, units in sorted(of_site.items()) if len(units) >= len(SPLITS)]
    return [*(several if len(of_site) > 1 else []), sorted(counts)]


def _fill(part_of: dict[str, int], position: Mapping[str, float], ends: Sequence[float]) -> list[str]:
    """Moves the nearest patients into parts that lack some; returns a sentence for each move."""
    starts, moved = (0.0, *ends[:-1]), []
    due = [LEAST * len(position) * (end - start) for start, end in zip(starts, ends, strict=True)]
    fewest = LEAST_PATIENTS if len(position) >= MANY_PATIENTS else 1
    least = [min(max(fewest, int(count)), len(position) - 2) for count in due]
    counts = Counter(part_of[unit] for unit in position)
    for part, (start, end) in enumerate(zip(starts, ends, strict=True)):
        while counts[part] < least[part]:
            free = [unit for unit in position if counts[part_of[unit]] > least[part_of[unit]]]
            unit = min(free, key=lambda name: (max(start - position[name], position[name] - end), name))
            moved.append(f"patient {unit} moves from {SPLITS[part_of[unit]]} to {SPLITS[part]}")
            counts.subtract([part_of[unit]])
            counts[part] += 1
            part_of[unit] = part
    return moved


def _where(samples: Sequence[Sample]) -> str:
    return str(samples[0].image.parent) if samples else "the data set"


ORDERS = 200


def earlier_split(
    samples: Sequence[Sample],
    fractions: tuple[float, float, float],
    seed: int = 0,
    apart: Collection[str] = ("doctor",),
) -> dict[str, list[Sample]]:
    """Splits as earlier versions did, for models that were trained with those.

    It takes the best of `ORDERS` seeded orders of the whole set, counted in slices, so one patient more or
    less changes the whole split.

    Raises:
        UserError: fewer than three patients, or fractions that are not positive.
    """
    groups, common = apart_and_common(samples, apart)
    sites: dict[str, Counter[str]] = {}
    for sample in common:
        sites.setdefault(sample.unit, Counter())[sample.site] += 1
    shares = checked_shares(common, fractions)
    candidates = [_assignment(sites, shares, seed, order) for order in range(ORDERS)]
    best = min(candidates, key=lambda candidate: _distance(candidate, sites, shares))
    return {**{name: [s for s in common if best[s.unit] == name] for name in SPLITS}, **groups}


def _assignment(
    sites: Mapping[str, Counter[str]], shares: Sequence[float], seed: int, order: int
) -> dict[str, str]:
    """Puts the patients, in one seeded order, where most slices are lacking; no split stays empty."""
    patients = sorted(sites)
    counts, assignment = [0] * len(SPLITS), {}
    for position, index in enumerate(make_rng(seed, "split", order).permutation(len(patients))):
        empty = [part for part in range(len(SPLITS)) if counts[part] == 0]
        choices = empty if len(patients) - position <= len(empty) else range(len(SPLITS))
        part = min(choices, key=lambda choice: counts[choice] / shares[choice])
        assignment[patients[index]] = SPLITS[part]
        counts[part] += sites[patients[index]].total()
    return assignment


def _distance(
    assignment: Mapping[str, str], sites: Mapping[str, Counter[str]], shares: Sequence[float]
) -> float:
    """Counts slices too many or too few, over splits and sites, in all and for each site."""
    names = sorted({site for counts in sites.values() for site in counts})
    # (patients, sites) slices, and (splits, patients) membership
    slices = np.array([[sites[patient][name] for name in names] for patient in sorted(sites)], dtype=float)
    member = np.array(
        [[assignment[patient] == split for patient in sorted(sites)] for split in SPLITS], dtype=float
    )
    lack = member @ slices - np.outer(shares, slices.sum(axis=0))  # (splits, sites)
    return float(np.abs(lack).sum() + np.abs(lack.sum(axis=1)).sum())


KEPT = "split.json"
"""File beside a run's resume file with the split that the run began with."""


class Part(Protocol):
    """A dataset of one split."""

    samples: list[Sample]
    dropped: int

    def __len__(self) -> int: ...


D = TypeVar("D", bound=Part)


class KeptSplit(ABC):
    """Base of data sets whose ``metadata`` has ``splits``, the patients of each part by name."""

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Returns what is stored with a trained model, as plain JSON."""

    def keep_split(self, folder: str | os.PathLike[str], resume: bool = False) -> None:
        """Stores the split of a run that begins, or checks it where the run is resumed.

        Raises:
            UserError: the run began with another split.
        """
        keep_split(folder, self.metadata(), resume)


class SplitData(KeptSplit, Generic[D]):
    """Base of data sets of several parts. Subclasses set the attributes.

    Attributes:
        dataset_dir: the set's folder.
        splits: the samples of each split, loaded or not.
        datasets: the parts that were loaded, by the name of the split.
        rule: how the set was split: the rule's name, seed and fractions.
        patient_pattern: the regular expression that found the patients; None for the field's usual names.
    """

    patient_pattern: str | None = None
    rule: dict[str, Any] = {}  # noqa: RUF012 (never changed in place)
    _learned_from: set[str] = set()  # noqa: RUF012
    dataset_dir: Path
    splits: dict[str, list[Sample]]
    datasets: dict[str, D]

    def __getitem__(self, name: str) -> D:
        if name not in self.datasets:
            raise UserError(
                f"{self.dataset_dir}: no split {name!r} was loaded; there is {', '.join(self.datasets)}"
            )
        return self.datasets[name]

    @property
    def train(self) -> D:
        """The training pairs (augmented where asked for)."""
        return self["train"]

    @property
    def val(self) -> D:
        """The validation pairs."""
        return self["val"]

    @property
    def test(self) -> D:
        """The test pairs."""
        return self["test"]

    @property
    def apart(self) -> dict[str, D]:
        """The groups that are reported apart, by name."""
        return {name: part for name, part in self.datasets.items() if name not in SPLITS}

    def counts(self) -> str:
        """Describes the slices and patients of each split in words."""
        return ", ".join(
            f"{name} {len(part)} slices of {len({sample.patient for sample in part.samples})} patients"
            for name, part in self.datasets.items()
        )

    def patients(self) -> dict[str, list[str]]:
        """Returns the patients of each split, sorted."""
        return {name: sorted({s.patient for s in part}) for name, part in self.splits.items()}

    def split_by(
        self,
        samples: list[Sample],
        fractions: Sequence[float],
        seed: int,
        apart: Sequence[str] = (),
        trained: Mapping[str, Any] | None = None,
    ) -> dict[str, list[Sample]]:
        """Calls `split_samples` and remembers the training patients and the rule of the split."""
        table = None if trained is None else trained.get("splits")
        self._learned_from = set() if table is None else {*table.get("train", ()), *table.get("val", ())}
        own = (self.dataset_dir / SPLITS_FILE).is_file()
        self.rule = {"rule": SPLITS_FILE} if own else _rule(fractions, seed)
        if trained is not None and not own:
            self.rule = dict(trained.get("split", {}))
        return split_samples(self.dataset_dir, samples, fractions, seed, apart, trained)

    def split_facts(self) -> dict[str, Any]:
        """Returns what a model's metadata say about the split: the patients of each part, and the rule."""
        pattern = {} if self.patient_pattern is None else {"patient_pattern": self.patient_pattern}
        return {"splits": self.patients(), "split": {**self.rule, **pattern}}

    def refuse_training_patients(self, samples: Sequence[Sample], folder: str | os.PathLike[str]) -> None:
        """Checks that another folder's samples share no patient with the training split, nor, where a trained
        model is evaluated, with those it was trained or chosen on.

        Raises:
            UserError: names one patient of both.
        """
        learned = {name for sample in self.splits["train"] for name in (sample.patient, sample.unit)}
        learned |= self._learned_from
        known = learned & {name for sample in samples for name in (sample.patient, sample.unit)}
        if known:
            raise UserError(f"{folder}: patient {min(known)} is in the training split too; remove the slices")


def split_samples(
    folder: Path,
    samples: list[Sample],
    fractions: Sequence[float],
    seed: int,
    apart: Sequence[str] = (),
    trained: Mapping[str, Any] | None = None,
) -> dict[str, list[Sample]]:
    """Splits a data set by the first of these that there is: the folder's ``splits.json``, the split that is
    stored with a trained model, `split_by_patient`.

    Patients that a model's split does not name are left out, and one line counts them.

    Args:
        trained: a trained model's metadata (`common.inference.checkpoint.model_info`): ``splits``, the
            patients of each part, or only ``split``, the rule and its seed (shared models name no patients;
            where the rule was a table, the set is split as before a training); with neither, the split is
            that of earlier versions. None before a training.
    Raises:
        UserError: a bad table, not three fractions, a set of other patients, or a ``splits.json`` that puts
            the model's training patients into another part.
    """
    table = folder / SPLITS_FILE
    own = assign(samples, read_splits(table)) if table.is_file() else None
    known = None if trained is None else trained.get("splits")
    if own is not None:
        _refuse_moved(own, known or {}, table)
        return own
    if known:
        return _as_kept(folder, samples, known)
    if len(fractions) != len(SPLITS):
        raise UserError(f"fractions {list(fractions)}: give three numbers, for train, val and test")
    shares = (fractions[0], fractions[1], fractions[2])
    if trained is None:
        return split_by_patient(samples, shares, seed, apart, folder)
    rule = trained.get("split", {})
    if rule.get("rule") == SPLITS_FILE:
        logger.warning(
            "%s: the model was split by a table and names no patients of its training, who cannot be told "
            "from others here; split by a hash of the names (in its training set, put its %s there)",
            folder,
            SPLITS_FILE,
        )
        return split_by_patient(samples, shares, seed, apart, folder)
    if rule.get("rule") == RULE:
        logger.warning("%s: the model names no patients of its training: split by its rule again", folder)
        return split_by_patient(samples, tuple(rule["fractions"]), int(rule["seed"]), apart, folder)
    if rule.get("rule"):
        raise UserError(
            f"{folder}: the model was split by {rule['rule']!r}, which this version does not know; give "
            f"other patients with --heldout_dir, or {SPLITS_FILE} there"
        )
    logger.warning("%s: the model does not say how it was split: as earlier versions would have", folder)
    return earlier_split(samples, shares, seed, apart)


def keep_split(folder: str | os.PathLike[str], facts: Mapping[str, Any], resume: bool = False) -> None:
    """Writes ``split.json`` into a run's folder; where the run is resumed, compares with it instead.

    Args:
        folder: the folder of the resume file.
        facts: a data set's metadata, with ``splits`` and ``split``.
        resume: whether a run in the folder goes on. Runs of earlier versions have their split in the model's
            JSON only.
    Raises:
        UserError: a patient is in another part than when the run began, was added, or is missing.
    """
    path = Path(folder) / KEPT
    files = [path, *sorted(Path(folder).glob("*.json"))] if resume else []
    records = ((file, read_json(file)) for file in files if file.is_file())
    kept = next(((file, table["splits"]) for file, table in records if "splits" in table), None)
    if kept is not None:
        before, now = _part_of(kept[1]), _part_of(facts["splits"])
        other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if other:
            parts = [part.get(other[0], "no part") for part in (before, now)]
            raise UserError(
                f"{kept[0]}: patient {other[0]} was in {parts[0]} when the run began, {parts[1]} now "
                f"({len(other)} such patients); restore the data, or put these splits there as {SPLITS_FILE}"
            )
    if is_main() and (kept is None or kept[0] != path):
        write_json(path, {name: facts[name] for name in ("splits", "split") if name in facts})


def _as_kept(
    folder: Path, samples: Sequence[Sample], table: Mapping[str, Sequence[str]]
) -> dict[str, list[Sample]]:
    """Returns the samples of each part of a trained model's split.

    Patients that it does not name are left out. So are patients of later parts whom the files now show to be
    the same person as a training or validation patient.
    """
    part_of = _part_of(table)
    units = {name: {s.unit for s in samples if part_of.get(s.patient) == name} for name in ("train", "val")}
    parts: dict[str, list[Sample]] = {name: [] for name in dict.fromkeys([*SPLITS, *table])}
    left_out = set()
    for sample in samples:
        part = part_of.get(sample.patient)
        trained = part != "train" and sample.unit in units["train"]
        chosen = part not in ("train", "val") and sample.unit in units["val"]
        if part is None or trained or chosen:
            left_out.add(sample.patient)
        else:
            parts[part].append(sample)
    if not parts["train"] or not (parts["test"] or not table.get("test")):
        missing = "train" if not parts["train"] else "test"
        raise UserError(
            f"{folder}: has no {missing} patient of the model's own split; give the data set of its "
            "training (with --patient_pattern if its patients were named otherwise), or other patients with "
            "--heldout_dir"
        )
    if left_out:
        logger.warning(
            "%s: %d patients are not in the model's split and left out, as %s; give them with --heldout_dir",
            folder,
            len(left_out),
            min(left_out),
        )
    return parts


def _refuse_moved(
    own: Mapping[str, Sequence[Sample]], known: Mapping[str, Sequence[str]], table: Path
) -> None:
    """Checks that a folder's own table tests on nobody that the model was trained or chosen on.

    Raises:
        UserError: names one that is elsewhere.
    """
    for name, allowed in (("train", ("train",)), ("val", ("train", "val"))):
        learned = set(known.get(name, ()))
        units = {s.unit for part in own.values() for s in part if s.patient in learned}
        others = [s for part, held in own.items() if part not in allowed for s in held]
        moved = {s.patient for s in others if s.patient in learned or s.unit in units}
        if moved:
            raise UserError(
                f"{table}: patient {min(moved)} is not in {' or '.join(allowed)}, but the model was "
                f"{'trained' if name == 'train' else 'chosen'} on it; give the split of its training"
            )


def _part_of(table: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {patient: name for name, part in table.items() for patient in part}


def _rule(fractions: Sequence[float], seed: int) -> dict[str, Any]:
    return {"rule": RULE, "seed": int(seed), "fractions": [float(share) for share in fractions]}
