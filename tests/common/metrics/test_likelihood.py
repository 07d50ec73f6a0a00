from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics.likelihood import log_densities, log_likelihood, usual_bandwidths


def normal(count: int, seed: int, spread: float = 1.0, dimension: int = 3) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, spread, (count, dimension))).float()


def two_modes(count: int, seed: int) -> Tensor:
    """Half of them around -4, half around 4."""
    return normal(count, seed) + torch.tensor([-4.0, 4.0]).repeat(count // 2)[:, None]


def test_two_gaussians_by_hand() -> None:
    samples, images = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    found = log_densities(samples, images, [1.0, 2.0]).exp()
    by_hand = [
        [(1 + math.exp(-25 / 2)) / 2, (math.exp(-1 / 2) + math.exp(-20 / 2)) / 2],
        [(1 + math.exp(-25 / 8)) / 2, (math.exp(-1 / 8) + math.exp(-20 / 8)) / 2],
    ]
    assert found[0].tolist() == pytest.approx([value / (2 * math.pi) for value in by_hand[0]])
    assert found[1].tolist() == pytest.approx([value / (2 * math.pi * 4) for value in by_hand[1]])


def test_the_density_is_one_in_all() -> None:
    places = torch.linspace(-30, 30, 1201)[:, None]
    density = log_densities(torch.tensor([[-2.0], [5.0], [5.5]]), places, [0.7]).exp()
    assert float(density.sum()) * 0.05 == pytest.approx(1, abs=1e-6)


def test_the_bandwidth_is_the_validation_images_own() -> None:
    """Around a single sample the most likely Gaussian has the root mean square distance as its width."""
    sample, validation, test = torch.zeros(1, 3), normal(50, 0, 0.3), normal(20, 1, 3.0)
    found = log_likelihood(sample, validation, test)
    assert found.bandwidth == pytest.approx(float(validation.square().mean().sqrt()), rel=1e-5)
    assert torch.equal(found.values, log_densities(sample, test, [found.bandwidth])[0])
    assert found.mean() == pytest.approx(float(found.values.mean())) and len(found.values) == 20


def test_the_row_of_bandwidths_holds_the_best() -> None:
    samples, validation = normal(200, 0), normal(100, 1)
    widths = usual_bandwidths(samples, validation)
    scores = log_densities(samples, validation, [*widths, 2 * widths[-1]]).mean(1)
    assert 0 < int(scores.argmax()) < len(widths) - 1 and widths == sorted(widths)


def test_a_collapsed_model_is_less_likely_and_the_order_is_not_symmetric() -> None:
    validation, test, full = (two_modes(100, seed) for seed in range(3))
    scores = [log_likelihood(samples, validation, test).mean() for samples in (full, full.abs())]
    assert scores[1] < scores[0] - 0.5
    wide = normal(100, 1, 9.0)
    assert log_likelihood(wide, validation, test).mean() > log_likelihood(test, validation, wide).mean() + 1


def test_equal_images_do_no_harm_and_missing_ones_are_named() -> None:
    same = torch.ones(4, 3)
    assert math.isfinite(log_likelihood(same, same, same).mean())
    with pytest.raises(UserError, match="no validation images"):
        log_likelihood(same, same[:0], same)
