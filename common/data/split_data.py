"""What all data sets that configs load have in common: the splits and their parts by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from common.data.samples import Sample
from common.data.splits import SPLITS, assign, read_splits, split_by_patient
from common.errors import UserError

SPLITS_FILE = "splits.json"


class Part(Protocol):
    """A dataset of one split."""

    samples: list[Sample]
    dropped: int

    def __len__(self) -> int: ...


D = TypeVar("D", bound=Part)


class SplitData(Generic[D]):
    """A data set of several parts. Subclasses fill in the attributes.

    Attributes:
        dataset_dir: the set's folder.
        splits: the samples of each split, loaded or not.
        datasets: the parts that were loaded, by the name of the split.
    """

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

    def refuse_training_patients(self, samples: Sequence[Sample], folder: str | os.PathLike[str]) -> None:
        """Checks that another folder's samples share no patient with the training split.

        Raises:
            UserError: names one patient of both.
        """
        known = {sample.patient for sample in self.splits["train"]} & {sample.patient for sample in samples}
        if known:
            raise UserError(f"{folder}: patient {min(known)} is in the training split too; remove the slices")


def split_samples(
    folder: Path,
    samples: list[Sample],
    fractions: Sequence[float],
    seed: int,
    apart: Sequence[str] = (),
) -> dict[str, list[Sample]]:
    """The folder's own ``splits.json`` where there is one, else `split_by_patient`.

    Raises:
        UserError: a bad table, or not three fractions.
    """
    table = folder / SPLITS_FILE
    if table.is_file():
        return assign(samples, read_splits(table))
    if len(fractions) != len(SPLITS):
        raise UserError(f"fractions {list(fractions)}: give three numbers, for train, val and test")
    return split_by_patient(samples, (fractions[0], fractions[1], fractions[2]), seed, apart)
