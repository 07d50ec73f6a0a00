from __future__ import annotations

import numpy as np
import pytest
import torch

from common.metrics.bootstrap import Resamples
from common.metrics.kid import kid, kid_change, kid_with_interval, squared_discrepancy
from common.metrics.nearest_neighbors import number_owners
from tests.common.metrics.plain_pairs import plain_kid


def test_unbiased_around_zero_and_rising_with_the_shift() -> None:
    numbers = np.random.default_rng(0)
    sets = torch.from_numpy(numbers.standard_normal((40, 20, 6)))
    same = np.array([kid(sets[i], sets[i + 1]) for i in range(0, 40, 2)])
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(len(same)) and same.min() < 0
    shifted = [kid(sets[0], sets[1] + shift) for shift in (0.5, 1.0, 2.0)]
    assert 0 < shifted[0] < shifted[1] < shifted[2]


def clustered(patients: int, slices: int, seed: int, name: str) -> tuple[torch.Tensor, list[str]]:
    """Slices scatter half as much around their patient as patients do: (patients * slices, 32)."""
    numbers = np.random.default_rng(seed)
    centres = numbers.standard_normal((patients, 1, 32))
    features = centres + 0.5 * numbers.standard_normal((patients, slices, 32))
    names = [f"{name}{index // slices}" for index in range(patients * slices)]
    return torch.from_numpy(features.reshape(-1, 32)), names


def test_few_patients_of_many_slices_are_not_far_apart() -> None:
    """5 against 14 patients of 24 slices of one distribution: 0, where pairs within a patient make it 1."""
    found = []
    for seed in range(30):
        (real, real_names), (fake, fake_names) = (
            clustered(5, 24, seed, "a"),
            clustered(14, 24, seed + 99, "b"),
        )
        found.append((kid(real, fake), kid(real, fake, real_names, fake_names)))
    slices, patients = np.array(found).T
    assert slices.mean() > 0.5 and slices.min() > 0.3
    assert abs(patients.mean()) < 3 * patients.std() / np.sqrt(30) < 0.15


def test_an_image_and_its_flip_are_no_pair() -> None:
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    twice = real.repeat(2, 1)
    assert kid(twice, fake, ["a", "b", "a", "b"]) == pytest.approx(kid(real, fake))
    assert kid(twice, fake) > kid(real, fake)


def test_a_patient_on_both_sides_is_left_out_between_them() -> None:
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    within = 3.0**3 + 1.0**3
    assert kid(real, fake, ["a", "b"], ["a", "b"]) == pytest.approx(within - (2.0**3 + 1.0**3))


def test_one_patient_has_no_pairs() -> None:
    real, fake = clustered(1, 9, 0, "a")[0], clustered(4, 3, 1, "b")[0]
    assert np.isnan(kid(real, fake, ["a"] * 9))


@pytest.mark.parametrize("shared", [False, True])
def test_blocks_give_what_whole_matrices_give(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setattr("common.metrics.kid.ROWS", 16)
    numbers = np.random.default_rng(0)
    real, fake = (torch.from_numpy(numbers.normal(0.5, 1, (count, 6))).float() for count in (37, 53))
    names = [f"p{number}" for number in numbers.integers(0, 7, 37)]
    others = [f"{'p' if shared else 'q'}{number}" for number in numbers.integers(0, 9, 53)]
    plain = real.double().numpy(), fake.double().numpy()
    assert kid(real, fake) == pytest.approx(plain_kid(*plain))
    assert kid(real, fake, names, others) == pytest.approx(plain_kid(*plain, names, others))
    assert kid(real, fake, names) == pytest.approx(plain_kid(*plain, names))


def test_leaving_a_patient_out_is_kid_without_him() -> None:
    (real, names), (fake, others) = clustered(4, 3, 0, "a"), clustered(5, 2, 1, "b")
    sets = [Resamples.draw(each, len(each), 50, np.random.default_rng(0)) for each in (names, others)]
    both = sets[0].join(sets[1])
    owners, parts = number_owners(names, others, (12, 10)), (both.parts[:12], both.parts[12:])
    sums = squared_discrepancy(real, fake, owners, parts, 9)
    weights = torch.ones(9)
    weights[both.parts[12]] = 0
    assert sums(weights) == pytest.approx(kid(real, fake[2:], names, others[2:]))
    value = kid_with_interval(real, fake, (names, others), both)
    assert value.mean == pytest.approx(kid(real, fake, names, others)) and value.patients == 4
    assert value.low < value.mean < value.high


def test_a_change_of_kid_is_surer_than_both_kids() -> None:
    """A small step towards the real images: its interval leaves 0 out where those of the KIDs overlap."""
    numbers = np.random.default_rng(5)
    (real, names), (fake, owners) = clustered(12, 4, 1, "a"), clustered(12, 4, 2, "b")
    before, after = fake + 0.6, fake + 0.5
    apart = Resamples.draw(names, 48, 50, numbers), Resamples.draw(owners, 48, 50, numbers)
    both = apart[0].join(apart[1])
    found = kid_change(real, before, after, (names, owners), both)
    expected = kid(real, after, names, owners) - kid(real, before, names, owners)
    assert found.mean == pytest.approx(expected) and found.high < 0
    kids = [kid_with_interval(real, each, (names, owners), both) for each in (before, after)]
    assert kids[1].high > kids[0].low
    assert kid_change(real, before, before, (names, owners), both).mean == 0
