from __future__ import annotations

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.metrics.baselines import baseline_predictions, nearest_masks, other_patients


def masks(*boxes: tuple[int, int, int, int], size: int = 20) -> torch.Tensor:
    labels = torch.zeros(len(boxes), 1, size, size)
    for label, (top, bottom, left, right) in zip(labels, boxes, strict=True):
        label[0, top:bottom, left:right] = 1
    return labels


def test_retrieval_prefers_overlap_then_area() -> None:
    train = masks((0, 4, 0, 4), (0, 10, 0, 10), (15, 18, 15, 20), (0, 0, 0, 0))
    test = masks((0, 5, 0, 5), (1, 10, 0, 10), (16, 19, 16, 20), (0, 0, 0, 0), (5, 10, 12, 15))
    #                most overlap: 0, 1 and 2; empty: the empty one; no overlap, area 15: the one of area 15
    assert nearest_masks(train, test).tolist() == [0, 1, 2, 3, 2]


def test_retrieval_on_large_masks_sees_small_lesions() -> None:
    train = masks((10, 14, 10, 14), (200, 230, 200, 230), size=256)
    assert nearest_masks(train, masks((202, 208, 202, 208), (9, 13, 9, 13), size=256)).tolist() == [1, 0]


def test_class_maps_are_compared_class_by_class() -> None:
    heart = masks((4, 12, 4, 12)) + masks((12, 16, 4, 12))  # below it: of another class
    upright, swapped = torch.where(heart > 0, 1.0, 0.0), torch.where(heart > 0, 2.0, 0.0)
    upright[0, 0, 12:16, 4:12] = 2
    swapped[0, 0, 12:16, 4:12] = 1
    smaller = torch.roll(upright, 2, -1)
    test = torch.cat([upright, swapped, 3 * masks((0, 2, 0, 2))])
    # the union is the same everywhere; without any overlap the areas of 3 decide: 0 and 0, but 1 and 2 differ
    train = torch.cat([swapped, smaller, upright, 3 * masks((9, 11, 9, 11))])
    assert nearest_masks(train, test).tolist() == [2, 0, 3]
    assert nearest_masks(train[:2], test[:1]).tolist() == [1]


def test_a_class_too_many_costs() -> None:
    only, both = masks((0, 4, 0, 4)), masks((0, 4, 0, 4)) + 2 * masks((9, 12, 9, 12))
    assert nearest_masks(torch.cat([both, only]), only.repeat(1, 1, 1, 1)).tolist() == [1]
    assert nearest_masks(torch.cat([only, both]), both).tolist() == [1]


def test_condition_images_are_compared_by_value() -> None:
    levels = torch.tensor([-0.9, 0.1, 0.8])[:, None, None, None].expand(3, 1, 80, 80)
    assert nearest_masks(levels, torch.full((2, 1, 80, 80), -0.3)).tolist() == [1, 1]
    assert nearest_masks(levels, levels.flip(0)).tolist() == [2, 1, 0]


def test_a_condition_image_is_a_prediction_too() -> None:
    images = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 20, 20)
    conditions = torch.full((2, 1, 20, 20), -0.3)
    found = baseline_predictions(images, -images, ["a", "b", "c"], conditions, ["x", "y"])
    assert list(found) == ["condition", "mean_image", "nearest_mask", "real_real"]
    assert torch.equal(found["condition"], conditions)


def test_real_pairs_are_of_other_patients_and_rarely_repeat() -> None:
    train = ["a"] * 3 + ["b"] * 3
    chosen = other_patients(train, ["a", "b", "a", "b", "c", "c"], np.random.default_rng(0))
    assert sorted(chosen) == [0, 1, 2, 3, 4, 5]
    assert all(train[index] != patient for index, patient in zip(chosen[:4], "abab", strict=True))
    assert len(other_patients(train, ["c"] * 20, np.random.default_rng(0))) == 20
    with pytest.raises(UserError, match="no training image of another patient"):
        other_patients(["a", "a"], ["a"], np.random.default_rng(0))


def test_all_baselines_look_like_predictions_and_repeat() -> None:
    train, test = masks((0, 4, 0, 4), (0, 10, 0, 10), (15, 18, 15, 20)), masks((0, 5, 0, 5), (2, 9, 0, 10))
    images = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 20, 20)
    arguments = (images, train, ["a", "b", "c"], test, ["x", "y"])
    found = baseline_predictions(*arguments, seed=3)
    assert list(found) == ["mean_image", "nearest_mask", "real_real"]
    assert found["nearest_mask"][:, 0, 0, 0].tolist() == [-1, 0]
    again = baseline_predictions(*arguments, seed=3)
    assert all(
        torch.equal(found[name], again[name]) and found[name].shape == (2, 1, 20, 20) for name in found
    )
