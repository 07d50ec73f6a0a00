"""Who is generated from, whose real slices the enhancer sees, and who is tested on: nobody twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from common.data.samples import Sample
from common.data.splits import held_out
from common.errors import UserError

LEAST_FOR_ENHANCER = 2
"""The enhancer holds one patient out."""
LEAST_TO_SPLIT, MANY = 3, 8
"""So many patients go to the enhancer where there are many: Table III's baselines split them once more."""

S = TypeVar("S", bound=Sample)


@dataclass(frozen=True)
class Parts(Generic[S]):
    """Scans by purpose."""

    generation: list[S]
    enhancer: list[S]
    test: list[S]

    def patients(self) -> dict[str, list[str]]:
        """The patients of each part, sorted."""
        return {name: sorted({sample.patient for sample in part}) for name, part in vars(self).items()}


def parts_of(train: Sequence[S], test: Sequence[S], share: float, seed: int) -> Parts[S]:
    """Splits the training patients once more: those to generate from, and those kept for the enhancer.

    Args:
        train, test: of the data set's split; test stays as it is.
        share: of the training patients that go to the enhancer: at least two, where three are there, and
            three where eight are, so that they can be split into train, val and test once more.
        seed: another seed gives another split. Who goes follows from the patient's name: it stays when others
            come or go.
    Raises:
        UserError: a share out of range, or fewer than two training patients.
    """
    if not 0 < share < 1:
        raise UserError(f"share_for_enhancer {share}: give a share between 0 and 1")
    units = sorted({sample.unit for sample in train})
    if len(units) < 2:
        raise UserError(
            f"{len(units)} training patient: at least 2 are needed, one to generate from and one that the "
            "enhancer learns real slices of; bring more patients"
        )
    least = LEAST_FOR_ENHANCER if len(units) < MANY else LEAST_TO_SPLIT
    kept = set(held_out(units, share, seed, "patients for the enhancer", least))
    return Parts(
        [sample for sample in train if sample.unit not in kept],
        [sample for sample in train if sample.unit in kept],
        list(test),
    )
