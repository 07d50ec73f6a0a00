"""Copies are found, and the most similar of the rest are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.generation.data import BankData, turn
from bundles.lung_two_stage.generation.images import nodule_layer
from bundles.lung_two_stage.generation.similarity import RealSide, Resemblance, most_similar
from common.data.intensity import WINDOWS
from tests.bundles.lung_two_stage.generation.made_banks import SIZE, made_nodules


class Pixels:
    """Features: all pixels."""

    name, dimension = "pixels", SIZE * SIZE

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.fixture(scope="module")
def data(work: Path) -> BankData:
    return BankData(work / "extraction" / "nodules", "nodules", SIZE, turned=True)


def test_a_turned_copy_is_one_and_another_patients_nodule_is_as_usual(data: BankData) -> None:
    side = RealSide(data, Pixels())
    copies = np.stack([turn(data.train.images[place], 3) for place in (0, 1)])
    other = made_nodules(seed=5)
    images = np.concatenate([copies, nodule_layer(other, SIZE, WINDOWS["lung"]).images])
    names = [*(data.train.samples[place].category for place in (0, 1)), *(r.category for r in other.records)]
    found = side.resemblance(images, names)
    assert found.copied[:2].all() and found.similarity[:2].tolist() == [1.0, 1.0]
    assert 0.4 < np.median(found.similarity[2:]) < 0.65
    assert found.copied[2:].mean() < 0.35


def test_each_class_is_held_against_itself(data: BankData) -> None:
    side = RealSide(data, Pixels())
    image = data.train.images[:1]
    own, other = data.train.samples[0].category, data.train.samples[1].category
    assert own != other
    assert side.resemblance(image, [own]).similarity[0] == 1
    assert side.resemblance(image, [other]).similarity[0] < 0.9
    assert side.resemblance(image, [""]).similarity[0] == 1


def test_the_most_similar_of_each_class_are_kept_first() -> None:
    found = Resemblance(np.array([0.5, 0.9, 0.3, 0.6, 0.4, 0.2]), np.array([False, True, *[False] * 4]))
    valid = np.array([True, True, True, True, False, True])
    assert most_similar(found, valid, [""] * 6, 2) == [3, 0]
    assert most_similar(found, valid, [""] * 6, 10) == [3, 0, 2, 5]
    assert most_similar(found, valid, ["a", "a", "b", "a", "b", "b"], 3) == [3, 0, 2]
    assert most_similar(found, valid, [""] * 6, 0) == []
