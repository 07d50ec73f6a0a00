from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.metrics import nearest_neighbors as pairs_module
from common.metrics.diversity import Birthday, alike_pairs, birthday, duplicate_threshold


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "BLOCK", 64)


def numbers() -> np.random.Generator:
    return np.random.default_rng(5)


def modes(count: int, images: int) -> Tensor:
    """Images of equally likely modes: whole numbers with a little noise."""
    draws = np.random.default_rng(1)
    places = draws.integers(0, count, images) + draws.uniform(-0.1, 0.1, images)
    return torch.from_numpy(places)[:, None].float()


def test_twenty_three_people_share_a_birthday() -> None:
    found = birthday(modes(365, 900), 0.3, numbers())
    assert found.reached and 20 <= found.batch <= 26
    assert Birthday(23, True).modes == pytest.approx(365, abs=0.1)


def test_twelve_modes_repeat_among_five() -> None:
    """Two of four are of one mode with probability 0.43, two of five with 0.62."""
    assert birthday(modes(12, 500), 0.3, numbers()) == Birthday(5, True)


def test_total_collapse_repeats_at_once_and_different_images_never() -> None:
    assert birthday(torch.zeros(150, 4), 0.0, numbers()) == Birthday(2, True)
    assert birthday(torch.arange(70.0)[:, None], 0.5, numbers()) == Birthday(70, False)


def test_the_threshold_is_a_quantile_of_the_nearest_distances() -> None:
    real = torch.tensor([0.0, 1.0, 3.0, 7.0, 15.0])[:, None]  # nearest: 1, 1, 2, 4, 8
    assert duplicate_threshold(real, 0.5) == 2 and duplicate_threshold(real, 0.75) == 4
    assert duplicate_threshold(real, 0.0) == 1


def test_alike_pairs_are_those_at_most_as_far() -> None:
    features = torch.from_numpy(np.random.default_rng(2).normal(300, 1, (150, 8))).float()
    features[140] = features[3]
    apart = (features.double()[:, None] - features.double()).square().sum(2).sqrt().triu(1)
    threshold = float(apart[2, 90])
    wanted = ((apart <= threshold) & torch.ones(150, 150).triu(1).bool()).nonzero()
    found = alike_pairs(features, threshold)
    assert (
        sorted(found.tolist()) == wanted.tolist() and [2, 90] in found.tolist() and [3, 140] in found.tolist()
    )


def test_a_single_image_cannot_repeat() -> None:
    with pytest.raises(UserError, match="1 images cannot repeat"):
        birthday(torch.zeros(1, 2), 1.0, numbers())
