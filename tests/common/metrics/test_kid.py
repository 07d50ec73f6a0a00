from __future__ import annotations

import numpy as np
import pytest
import torch

from common.metrics.kid import kid, polynomial_kernel


def test_kernel_of_known_vectors() -> None:
    first, second = torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 4.0], [0.0, -2.0]])
    assert polynomial_kernel(first, second).tolist() == [[8.0**3, (-2.0) ** 3]]


def test_two_points_a_side_by_hand() -> None:
    real, fake = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    within = 3.0**3 + 1.0**3
    between = (1 + 8 + 1 + 27) / 4
    assert kid(real, fake) == pytest.approx(within - 2 * between)


def test_unbiased_around_zero_and_rising_with_the_shift() -> None:
    numbers = np.random.default_rng(0)
    sets = torch.from_numpy(numbers.standard_normal((40, 20, 6)))
    same = np.array([kid(sets[i], sets[i + 1]) for i in range(0, 40, 2)])
    assert abs(same.mean()) < 3 * same.std() / np.sqrt(len(same)) and same.min() < 0
    shifted = [kid(sets[0], sets[1] + shift) for shift in (0.5, 1.0, 2.0)]
    assert 0 < shifted[0] < shifted[1] < shifted[2]


def test_copies_of_a_row_are_not_pairs() -> None:
    real, fake = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([[0.0], [1.0], [7.0]])
    twice = torch.tensor([2.0, 2.0, 0.0])
    expected = kid(real[:2], fake[:2])
    assert Kernels(real, fake).discrepancy(twice, twice) == pytest.approx(expected)


def test_large_sets_go_in_blocks_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0)
    real, fake = (torch.from_numpy(numbers.normal(0.5, 1, (count, 6))).float() for count in (37, 53))
    weights = [torch.from_numpy(numbers.integers(0, 3, (4, count))) for count in (37, 53)]
    kept = Kernels(real, fake)
    single = [kept.discrepancy(*pair) for pair in zip(*weights, strict=True)]
    monkeypatch.setattr("common.metrics.pairs.BLOCK", 16)
    monkeypatch.setattr("common.metrics.kid.KEPT", 0)
    assert Kernels(real, fake).discrepancies(*weights).tolist() == pytest.approx(single)
    within = [polynomial_kernel(part, part).fill_diagonal_(0).sum() for part in (real, fake)]
    between = polynomial_kernel(real, fake).mean()
    expected = within[0] / (37 * 36) + within[1] / (53 * 52) - 2 * between
    assert kid(real, fake) == pytest.approx(float(expected))
