from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.metrics.birthday import Birthday
from common.metrics.spread import Spread, spread


class Means:
    """The mean of each image as its one feature."""

    name = "means"
    dimension = 1

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None]


def ramps(*levels: float) -> Tensor:
    """Images of a ramp each, at the levels given."""
    ramp = torch.linspace(-0.2, 0.2, 16).expand(len(levels), 1, 16, 16)
    return ramp + torch.tensor(levels).view(-1, 1, 1, 1)


def test_three_images_by_hand() -> None:
    found = spread(ramps(0.0, 0.1, 0.5), Means())
    assert found.features == pytest.approx((0.1 + 0.5 + 0.4) / 3, abs=1e-5)
    assert found.threshold == pytest.approx(0.1, abs=1e-5)  # nearest: 0.1, 0.1, 0.4
    assert found.modes == Birthday(3, True).modes  # the one alike pair of the three is complete at the third
    assert 0 < found.images < 1


def test_a_set_is_as_diverse_as_itself_and_equal_images_are_not_at_all() -> None:
    levels = np.random.default_rng(0).uniform(-0.7, 0.7, 60)
    real = spread(ramps(*levels), Means())
    same = spread(ramps(*[levels[3]] * 60), Means(), real.threshold)
    assert real.against(real) == {"images": 1, "features": 1, "modes": 1}
    measures = same.against(real)
    assert measures["images"] == pytest.approx(0, abs=1e-5) and measures["features"] == 0
    assert same.modes == Birthday(2, True).modes and measures["modes"] < 0.02


def test_a_few_modes_far_apart_are_found_by_their_repetitions_alone() -> None:
    levels = np.random.default_rng(0).uniform(-0.7, 0.7, 60)
    real = spread(ramps(*levels), Means())
    measures = spread(ramps(*[-0.7, -0.2, 0.3, 0.7] * 15), Means(), real.threshold).against(real)
    assert measures["features"] > 0.8 and measures["images"] > 0.7 and measures["modes"] < 0.05


def test_real_images_that_are_all_alike_do_not_divide() -> None:
    nothing = Spread(0.0, 0.0, 1.0, 0.0)
    assert nothing.against(nothing) == {"images": 0, "features": 0, "modes": 1}
