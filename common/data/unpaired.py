"""Two data sets without pairs in one stream of batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch.utils.data import Dataset

from common.data.sampling import Draw
from common.errors import UserError
from common.random import generator


class Items(Protocol):
    """Records by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, visit: Any) -> Mapping[str, Any]: ...


class UnpairedDataset(Dataset[dict[str, Any]]):
    """Each item of one set beside one of the other, as unpaired translation takes them (Zhu et al. 2017).

    An epoch visits every item of the longer set once. In training the other set's item is drawn anew for each
    visit, from (seed, epoch, number) alone, so that batches do not depend on workers or on where a run was
    resumed. Without a draw (a plain number, as in validation) item k of the shorter set is number k, counted
    round.

    Args:
        first, second: items are mappings with entries of different names, but for ``sample``: that is the
            number of the visit.
        seed: the run's seed.
    Raises:
        UserError: one of them is empty.
    """

    def __init__(self, first: Items, second: Items, seed: int = 0) -> None:
        if not len(first) or not len(second):
            raise UserError(f"{len(first)} and {len(second)} images: both sides need at least one")
        self.first, self.second, self.seed = first, second, seed

    def __len__(self) -> int:
        return max(len(self.first), len(self.second))

    def __getitem__(self, visit: Draw | int) -> dict[str, Any]:
        places = self.places(visit)
        items = (side[place] for side, place in zip((self.first, self.second), places, strict=True))
        number = visit.sample if isinstance(visit, Draw) else int(visit)
        return {**next(items), **next(items), "sample": number}

    def places(self, visit: Draw | int) -> tuple[int, int]:
        """Which items of the first and the second set a visit shows.

        Raises:
            IndexError: a number beyond the end.
        """
        lengths = len(self.first), len(self.second)
        number = visit.sample if isinstance(visit, Draw) else int(visit)
        if number >= len(self):
            raise IndexError(number)
        if not isinstance(visit, Draw):
            return number % lengths[0], number % lengths[1]
        partner = int(generator(self.seed, "partner", visit.epoch, number).integers(min(lengths)))
        return (number, partner) if lengths[0] >= lengths[1] else (partner, number)
