from __future__ import annotations

import pytest
import torch
from scipy.stats import mannwhitneyu

from common.random import generator
from common.trust.membership import membership, membership_auc, roc


def test_the_auc_by_hand() -> None:
    members, others = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 6.0])
    assert membership_auc(members, others) == pytest.approx((2 + 1.5 + 1) / 6)
    assert membership_auc(members, others, torch.tensor([2, 0, 1, 0, 3])) == 1
    assert membership_auc(others, members) == pytest.approx(1 - 4.5 / 6)


def test_as_the_rank_sum_has_it() -> None:
    numbers = generator(0, "auc")
    members, others = (torch.from_numpy(numbers.integers(0, 30, count) / 7) for count in (40, 25))
    farther = mannwhitneyu(others.numpy(), members.numpy()).statistic
    assert membership_auc(members, others) == pytest.approx(float(farther) / (40 * 25))


def test_copies_are_recognised_and_chance_is_chance() -> None:
    numbers = generator(1, "auc")
    far, near, other = (torch.from_numpy(numbers.uniform(low, low + 1, 50)) for low in (1, 0, 1))
    ids = [f"p{place // 5}" for place in range(50)]
    told = membership(near, far, (ids, ids), resamples=50)
    assert told.mean == told.low == told.high == 1 and told.n == 100
    chance = membership(other, far, (ids, ids), resamples=200)
    single = membership(other, far, ([*map(str, range(50))], [*map(str, range(50))]), resamples=200)
    assert chance.low < 0.5 < chance.high and single.low < 0.5 < single.high


def test_the_curve_ends_where_it_must() -> None:
    false, true = roc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    assert false == [0, 0, 0.5, 1] and true == [0, 0.5, 1, 1]
