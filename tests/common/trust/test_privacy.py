from __future__ import annotations

import pytest
import torch
from scipy.stats import mannwhitneyu

from common.rng import make_rng
from common.trust.privacy import by_patient, domain_shift, membership, membership_auc, recognised, roc


def test_the_auc_by_hand() -> None:
    members, others = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 6.0])
    assert membership_auc(members, others) == pytest.approx((2 + 1.5 + 1) / 6)
    assert membership_auc(members, others, torch.tensor([2, 0, 1, 0, 3])) == 1
    assert membership_auc(others, members) == pytest.approx(1 - 4.5 / 6)


def test_as_the_rank_sum_has_it() -> None:
    numbers = make_rng(0, "auc")
    members, others = (torch.from_numpy(numbers.integers(0, 30, count) / 7) for count in (40, 25))
    farther = mannwhitneyu(others.numpy(), members.numpy()).statistic
    assert membership_auc(members, others) == pytest.approx(float(farther) / (40 * 25))


def test_copies_are_recognised_and_chance_is_chance() -> None:
    numbers = make_rng(1, "auc")
    far, near, other = (torch.from_numpy(numbers.uniform(low, low + 1, 50)) for low in (1, 0, 1))
    ids = [f"p{place // 5}" for place in range(50)]
    told = membership(near, far, (ids, ids), resamples=50)
    assert told.mean == told.low == told.high == 1 and told.n == 20
    chance = membership(other, far, (ids, ids), resamples=200)
    single = membership(other, far, ([*map(str, range(50))], [*map(str, range(50))]), resamples=200)
    assert chance.low < 0.5 < chance.high and single.low < 0.5 < single.high


def test_the_curve_ends_where_it_must() -> None:
    false, true = roc(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    assert false == [0, 0, 0.5, 1] and true == [0, 0.5, 1, 1]


def test_a_patient_counts_once() -> None:
    means = by_patient(torch.tensor([4.0, 1, 2, 3, 9]), ["b", "a", "b", "a", "c"])
    assert means.tolist() == [3, 2, 9]
    members, others = torch.tensor([1.0, 1, 1, 1, 9]), torch.tensor([2.0, 3])
    ids = ["a", "a", "a", "a", "b"], ["c", "d"]
    assert membership_auc(members, others) == 0.8  # by images
    found = membership(members, others, ids, resamples=20)
    assert found.mean == 0.5 and found.n == 4


def test_clustered_slices_are_no_evidence() -> None:
    """Patients alike in truth, 25 slices each that hardly differ: the interval covers chance as stated."""
    covered = 0
    for seed in range(100):
        numbers = make_rng(seed, "clusters")
        sides = [
            torch.from_numpy((numbers.normal(size=12)[:, None] + 0.1 * numbers.normal(size=(12, 25))).ravel())
            for _ in range(2)
        ]
        ids = [str(place // 25) for place in range(300)]
        found = membership(sides[0], sides[1], (ids, ids), resamples=100)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 85


def test_recognised_at_a_share_of_false_alarms() -> None:
    members, others = torch.tensor([1.0, 2, 3, 8]), torch.arange(2.5, 102.5)
    assert recognised(members, others, 0.0) == 0.5
    assert recognised(members, others, 0.01) == 0.75  # the one other at 2.5 is allowed
    assert recognised(members, others, 0.05) == 0.75 and recognised(members, others, 0.06) == 1
    assert recognised(members, others[:50], 0.01) == 0.5  # one of fifty would be too many
    ids = (["a", "b", "c", "d"], [*map(str, range(100))])
    found = membership(members, others, ids, rate=0.01, resamples=50)
    assert found.mean == 0.75 and found.low <= 0.75 <= found.high


def features(patients: int, seed: int, moved: float = 0.0, slices: int = 6) -> tuple[torch.Tensor, list[str]]:
    """Slices of a patient differ by a tenth of what patients do."""
    numbers = make_rng(seed, "features")
    means = numbers.normal(moved, 1, (patients, 1, 8)) + 0.1 * numbers.normal(size=(patients, slices, 8))
    return torch.from_numpy(means.reshape(-1, 8)), [f"{seed}-{k // slices}" for k in range(patients * slices)]


def test_another_hospital_is_told_and_patients_like_the_others_are_not() -> None:
    training, ids = features(30, 0)
    other, there = features(20, 1, moved=1.0)
    shift = domain_shift(training, other, (ids, there))
    assert shift.found and shift.p_value == 1 / 500 and shift.ratio > 5
    assert domain_shift(training, other, (ids, there)) == shift


def test_clusters_of_slices_raise_no_alarm() -> None:
    alarms = 0
    for seed in range(100):
        (here, ids), (there, others) = features(12, 2 * seed), features(8, 2 * seed + 1)
        alarms += domain_shift(here, there, (ids, others), seed).found
    assert alarms <= 4  # 1 expected
