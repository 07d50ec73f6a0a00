from __future__ import annotations

import pytest
import torch
from scipy.stats import mannwhitneyu

from common.metrics.features import pattern_vectors
from common.metrics.nearest_neighbors import find_nearest
from common.rng import make_rng
from common.trust.membership import (
    Nearest,
    NearestSearch,
    compare,
    domain_shift,
    mean_by_patient,
    measure_distances,
    membership_attack,
    membership_auc,
    orient_and_shift,
    roc_curve,
    shift_pixels,
    shifts_up_to,
    tpr_at_fpr,
)
from common.trust.registration import ORIENTATION_NAMES, turn
from tests.common.trust.made import pictures


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
    told = membership_attack(near, far, (ids, ids), resamples=50)
    assert told.mean == told.low == told.high == 1 and told.n == 20
    chance = membership_attack(other, far, (ids, ids), resamples=200)
    single = membership_attack(other, far, ([*map(str, range(50))], [*map(str, range(50))]), resamples=200)
    assert chance.low < 0.5 < chance.high and single.low < 0.5 < single.high


def test_the_curve_ends_where_it_must() -> None:
    false, true = roc_curve(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    assert false == [0, 0, 0.5, 1] and true == [0, 0.5, 1, 1]


def test_a_patient_counts_once() -> None:
    means = mean_by_patient(torch.tensor([4.0, 1, 2, 3, 9]), ["b", "a", "b", "a", "c"])
    assert means.tolist() == [3, 2, 9]
    members, others = torch.tensor([1.0, 1, 1, 1, 9]), torch.tensor([2.0, 3])
    ids = ["a", "a", "a", "a", "b"], ["c", "d"]
    assert membership_auc(members, others) == 0.8  # by images
    found = membership_attack(members, others, ids, resamples=20)
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
        found = membership_attack(sides[0], sides[1], (ids, ids), resamples=100)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 85


def test_recognised_at_a_share_of_false_alarms() -> None:
    members, others = torch.tensor([1.0, 2, 3, 8]), torch.arange(2.5, 102.5)
    assert tpr_at_fpr(members, others, 0.0) == 0.5
    assert tpr_at_fpr(members, others, 0.01) == 0.75  # the one other at 2.5 is allowed
    assert tpr_at_fpr(members, others, 0.05) == 0.75 and tpr_at_fpr(members, others, 0.06) == 1
    assert tpr_at_fpr(members, others[:50], 0.01) == 0.5  # one of fifty would be too many
    ids = (["a", "b", "c", "d"], [*map(str, range(100))])
    found = membership_attack(members, others, ids, rate=0.01, resamples=50)
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
    assert shift.significant and shift.p_value == 1 / 500 and shift.ratio > 5
    assert domain_shift(training, other, (ids, there)) == shift


def test_clusters_of_slices_raise_no_alarm() -> None:
    alarms = 0
    for seed in range(100):
        (here, ids), (there, others) = features(12, 2 * seed), features(8, 2 * seed + 1)
        alarms += domain_shift(here, there, (ids, others), seed).significant
    assert alarms <= 4  # 1 expected


def search_all(queries: torch.Tensor, references: torch.Tensor, reach: int = 0) -> Nearest:
    search, vectors = NearestSearch(len(queries)), pattern_vectors(references)
    for orientation, part in orient_and_shift(queries, shifts_up_to(reach)):
        compare(part, vectors, orientation, search)
    return search.nearest


def test_the_nearest_over_all_orientations_as_by_brute_force() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turn(queries[2:3], "rot90")[0]
    found = search_all(queries, references)
    oriented = [part for _, part in orient_and_shift(queries)]
    every = torch.stack([find_nearest(part, pattern_vectors(references))[0][:, 0] for part in oriented])
    assert torch.equal(found.distances, every.amin(0))
    assert found.distances[2] == pytest.approx(0, abs=1e-6) and found.indices[2] == 4
    assert ORIENTATION_NAMES[int(found.orientations[2])] == "rot90"


def test_both_directions_in_one_walk_as_by_brute_force() -> None:
    """More vectors than a block holds, far from the origin."""
    numbers = torch.Generator().manual_seed(0)
    synthetic, heldout = (torch.randn(count, 6, generator=numbers) + 9 for count in (1100, 30))
    training = [torch.randn(1300, 6, generator=numbers) + 9 for _ in range(2)]
    others = [torch.randn(30, 6, generator=numbers) + 9 for _ in range(2)]
    found = measure_distances(synthetic, heldout, zip(range(2), training, others, strict=True))
    to_training = torch.stack([find_nearest(synthetic, each)[0][:, 0] for each in training])
    assert torch.equal(found.synthetic.distances, to_training.amin(0))
    assert torch.equal(found.synthetic.orientations, to_training.argmin(0))
    for name, queries in (("members", training), ("others", others)):
        expected = torch.stack([find_nearest(each, synthetic)[0][:, 0] for each in queries]).amin(0)
        assert torch.equal(getattr(found, name).distances, expected)
    expected = torch.stack([find_nearest(heldout, each)[0][:, 0] for each in training]).amin(0)
    assert torch.equal(found.heldout.distances, expected)


def test_shifts_shortest_first_each_once_and_what_they_do() -> None:
    assert len(set(shifts_up_to(2))) == len(shifts_up_to(2)) == 25
    image = torch.arange(12.0).view(1, 1, 3, 4)
    expected = torch.tensor([[1.0, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]])  # down by 1, to the left by 1
    assert torch.equal(shift_pixels(image, (1, -1))[0, 0], expected)


def test_a_copy_that_was_turned_and_shifted_is_found() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turn(shift_pixels(queries[2:3], (-2, 1)), "rot90")[0]
    found, still = search_all(queries, references, 2), search_all(queries, references)
    assert found.indices[2] == 4 and ORIENTATION_NAMES[int(found.orientations[2])] == "rot90"
    assert found.distances[2] < 0.5 * still.distances[2]
    assert bool((found.distances <= still.distances).all())
