"""What all data sets that configs load have in common: the split, its parts by name, and how it is kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from common.data.earlier_splits import earlier_split
from common.data.persons import SPLITS_FILE
from common.data.samples import Sample
from common.data.splits import RULE, SPLITS, assign, read_splits, split_by_patient
from common.errors import UserError
from common.files import read_json, write_json
from common.training.distributed import is_main

logger = logging.getLogger(__name__)
KEPT = "split.json"
"""Beside a run's resume file: the split that it began with."""


class Part(Protocol):
    """A dataset of one split."""

    samples: list[Sample]
    dropped: int

    def __len__(self) -> int: ...


D = TypeVar("D", bound=Part)


class KeptSplit:
    """A data set whose ``metadata`` has ``splits``: the patients of each part by name."""

    def metadata(self) -> dict[str, Any]:
        """What travels with a trained model, as plain JSON."""
        raise NotImplementedError

    def keep_split(self, folder: str | os.PathLike[str], resume: bool = False) -> None:
        """Writes the split beside a run that begins, or checks it where the run is resumed.

        Raises:
            UserError: the run began with another split.
        """
        keep_split(folder, self.metadata(), resume)


class SplitData(KeptSplit, Generic[D]):
    """A data set of several parts. Subclasses fill in the attributes.

    Attributes:
        dataset_dir: the set's folder.
        splits: the samples of each split, loaded or not.
        datasets: the parts that were loaded, by the name of the split.
        rule: how the set was split: the rule's name, seed and fractions.
        patient_pattern: what told the patients; None for the field's ways of naming.
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
        """Slices and patients of each split, for people."""
        return ", ".join(
            f"{name} {len(part)} slices of {len({sample.patient for sample in part.samples})} patients"
            for name, part in self.datasets.items()
        )

    def patients(self) -> dict[str, list[str]]:
        """The patients of each split, sorted."""
        return {name: sorted({s.patient for s in part}) for name, part in self.splits.items()}

    def split_by(
        self,
        samples: list[Sample],
        fractions: Sequence[float],
        seed: int,
        apart: Sequence[str] = (),
        trained: Mapping[str, Any] | None = None,
    ) -> dict[str, list[Sample]]:
        """`split_samples`, and remembers who was trained on and by which rule the set was split."""
        table = None if trained is None else trained.get("splits")
        self._learned_from = set() if table is None else {*table.get("train", ()), *table.get("val", ())}
        own = (self.dataset_dir / SPLITS_FILE).is_file()
        self.rule = {"rule": SPLITS_FILE} if own else _rule(fractions, seed)
        if trained is not None and not own:
            self.rule = dict(trained.get("split", {}))
        return split_samples(self.dataset_dir, samples, fractions, seed, apart, trained)

    def split_facts(self) -> dict[str, Any]:
        """What a model's metadata say of the split: the patients by part, and the rule."""
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
    """The split of a data set.

    Of a trained model its own, kept with it: patients that it does not name are left out, and one line counts
    them. Else the folder's ``splits.json`` where there is one, else `split_by_patient`.

    Args:
        trained: what stands beside a trained model (`common.inference.models.model_info`): ``splits``, the
            patients of each part, or only ``split``, the rule and its seed (shared models name no patients);
            with neither the split is that of earlier versions. None before a training.
    Raises:
        UserError: a bad table, not three fractions, a set of other patients, or a ``splits.json`` that gives
            the model's training patients another part.
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
        raise UserError(f"{table}: missing, but the model was trained with such a table; put it there")
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
        folder: of the resume file.
        facts: a data set's metadata, with ``splits`` and ``split``.
        resume: whether a run may be there that goes on. One of an earlier version has its split beside its
            model only.
    Raises:
        UserError: a patient is in another part than when the run began, or came, or went.
    """
    path = Path(folder) / KEPT
    files = [path, *sorted(Path(folder).glob("*.json"))] if resume else []
    found = ((file, read_json(file)) for file in files if file.is_file())
    kept = next(((file, table["splits"]) for file, table in found if "splits" in table), None)
    if kept is not None:
        before, now = _part_of(kept[1]), _part_of(facts["splits"])
        other = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if other:
            parts = [part.get(other[0], "no part") for part in (before, now)]
            raise UserError(
                f"{kept[0]}: patient {other[0]} was in {parts[0]} when the run began, {parts[1]} now "
                f"({len(other)} so in all); bring the data back, or put these splits as {SPLITS_FILE} there"
            )
    if is_main() and (kept is None or kept[0] != path):
        write_json(path, {name: facts[name] for name in ("splits", "split") if name in facts})


def _as_kept(
    folder: Path, samples: Sequence[Sample], table: Mapping[str, Sequence[str]]
) -> dict[str, list[Sample]]:
    """The samples of a trained model's parts, without those of strangers.

    A patient whom the files now show to be one person with a training or validation patient is a stranger to
    all other parts.
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
