from __future__ import annotations

import torch

from common.random import generator
from common.trust.shift import domain_shift


def features(patients: int, seed: int, moved: float = 0.0, slices: int = 6) -> tuple[torch.Tensor, list[str]]:
    """Slices of a patient differ by a tenth of what patients do."""
    numbers = generator(seed, "features")
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
