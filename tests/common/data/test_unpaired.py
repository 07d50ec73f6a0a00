"""Two sets of different lengths in one stream."""

from __future__ import annotations

from collections import Counter

import pytest

from common.data.sampling import BatchStream, Draw
from common.data.unpaired import UnpairedDataset
from common.errors import UserError


class Numbers:
    """Items that tell their number under a name."""

    def __init__(self, name: str, length: int) -> None:
        self.name, self.length = name, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> dict[str, int]:
        return {self.name: place, "sample": place}


def made(first: int, second: int, seed: int = 0) -> UnpairedDataset:
    return UnpairedDataset(Numbers("label", first), Numbers("image", second), seed)


@pytest.mark.parametrize("lengths", [(40, 7), (7, 40)])
def test_an_epoch_visits_the_longer_set_once_and_draws_of_the_shorter(lengths: tuple[int, int]) -> None:
    dataset = made(*lengths)
    stream = BatchStream(len(dataset), 4)
    visits = [dataset[draw] for position in range(10) for draw in stream.batch(position)]
    longer, shorter = ("label", "image") if lengths[0] > lengths[1] else ("image", "label")
    assert sorted(item[longer] for item in visits) == list(range(40))
    assert all(item["sample"] == item[longer] for item in visits)
    counts = Counter(item[shorter] for item in visits)
    assert set(counts) == set(range(7)) and max(counts.values()) > min(counts.values())


def test_the_partner_changes_by_epoch_and_repeats_by_seed() -> None:
    partners = [[made(30, 9)[Draw(epoch, n)]["image"] for n in range(30)] for epoch in (0, 1, 0)]
    assert partners[0] == partners[2] != partners[1]
    assert partners[0] != [made(30, 9, seed=1)[Draw(0, n)]["image"] for n in range(30)]


def test_in_order_the_shorter_set_is_counted_round() -> None:
    assert [made(5, 2)[number]["image"] for number in range(5)] == [0, 1, 0, 1, 0]
    assert len(list(made(2, 3))) == 3  # iteration ends


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(UserError, match="3 and 0 images"):
        made(3, 0)
