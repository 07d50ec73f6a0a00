from __future__ import annotations

from itertools import islice

import pytest

from common.data.loaders import InfiniteBatchSampler, SampleIndex
from common.errors import UserError


def test_every_epoch_is_another_order_of_all_complete_batches() -> None:
    stream = InfiniteBatchSampler(11, 2, seed=4)
    batches = list(islice(stream, 10))
    assert stream.batches_per_epoch == 5 and all(len(batch) == 2 for batch in batches)
    epochs = [[draw for batch in batches[start : start + 5] for draw in batch] for start in (0, 5)]
    for number, epoch in enumerate(epochs):
        assert {draw.epoch for draw in epoch} == {number}
        assert len({draw.index for draw in epoch}) == 10  # the eleventh waits for another epoch
    assert [draw.index for draw in epochs[0]] != [draw.index for draw in epochs[1]]


def test_a_stream_can_start_anywhere() -> None:
    whole = list(islice(InfiniteBatchSampler(9, 2, seed=1), 9))
    later = InfiniteBatchSampler(9, 2, seed=1)
    later.position = 6
    assert list(islice(later, 3)) == whole[6:]
    assert list(islice(InfiniteBatchSampler(9, 2, seed=2), 9)) != whole


def test_ranks_share_out_each_batch_without_overlap() -> None:
    alone = list(islice(InfiniteBatchSampler(12, 6, seed=3), 2))
    shares = [list(islice(InfiniteBatchSampler(12, 2, seed=3, rank=rank, ranks=3), 2)) for rank in range(3)]
    assert [first + second + third for first, second, third in zip(*shares, strict=True)] == alone


def test_a_fixed_order() -> None:
    assert next(iter(InfiniteBatchSampler(4, 3, shuffle=False))) == [
        SampleIndex(0, 0),
        SampleIndex(1, 0),
        SampleIndex(2, 0),
    ]


@pytest.mark.parametrize(("length", "ranks"), [(3, 1), (7, 2)])
def test_fewer_samples_than_a_batch_are_refused(length: int, ranks: int) -> None:
    with pytest.raises(UserError, match=f"{length} training samples are fewer than one batch of 4 x {ranks}"):
        InfiniteBatchSampler(length, 4, ranks=ranks)
