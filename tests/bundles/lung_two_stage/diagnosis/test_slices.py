"""Slices with their nodules, and what training sees of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.composition.reading import Composites
from bundles.lung_two_stage.diagnosis.slices import (
    SliceItems,
    Slices,
    enhanced_slices,
    of_bank,
    of_composites,
)
from common.data.augment import Augmentation
from common.data.intensity import WINDOWS
from common.data.sampling import Draw
from common.errors import UserError
from tests.bundles.lung_two_stage.made_work import slice_bank, write_composites


def made() -> Slices:
    """None, one of category 0, and one mostly of category 1."""
    nodules = np.zeros((3, 8, 8), np.uint8)
    nodules[1, 2, 2] = 1
    nodules[2, 2, 1:5], nodules[2, 5, 5] = 2, 1
    images = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 8, 8) / 4
    return Slices(images, nodules, ["a", "b", "c"])


def test_a_slice_has_the_category_with_most_pixels() -> None:
    assert made().has_nodule.tolist() == [False, True, True]
    assert made().category.tolist() == [-1, 0, 1]
    assert made().at([0]).category.tolist() == [-1]


def test_places_may_repeat_and_sets_be_joined() -> None:
    twice = made().at([2, 2, 0]).beside(made())
    assert len(twice) == 6 and twice.patients == ["c", "c", "a", "a", "b", "c"]
    assert twice.category.tolist() == [1, 1, -1, -1, 0, 1]


def test_items_of_all_tasks() -> None:
    items = SliceItems(made())
    assert [item["class"] for item in items] == [0, 1, 1]
    assert items[2]["label"].shape == (1, 8, 8) and float(items[2]["label"].sum()) == 5
    categories = SliceItems(made(), "category")
    assert [item["class"] for item in categories] == [0, 1]
    assert [item["class"] for item in SliceItems(made(), "joint")] == [0, 1, 2]


def test_only_draws_are_augmented_image_and_mask_alike() -> None:
    slices = made()
    shown = Slices(torch.from_numpy((slices.nodules > 0).astype(np.float32))[:, None], slices.nodules, "abc")
    items = SliceItems(shown, augment=Augmentation(1.0, 0, 0, 0), seed=1)
    flipped = items[Draw(0, 2)]
    assert torch.equal(flipped["label"], items[2]["label"].flip(-1))
    assert torch.equal(flipped["image"] > 0.5, flipped["label"] > 0)


def test_banks_and_composites(tmp_path: Path) -> None:
    bank = slice_bank(["a", "b"], 2, [1, 0])
    slices = of_bank(bank, WINDOWS["lung"])
    assert slices.patients == ["a", "a", "b", "b"] and slices.has_nodule.tolist() == [True, False] * 2
    folder = write_composites(tmp_path, 5, 3)
    some = of_composites(folder, WINDOWS["lung"], 3)
    assert len(some) == 3 and some.has_nodule.all() and set(some.patients) == {""}
    known = {composite.mask.tobytes() for composite in Composites(folder)}
    assert len({mask.tobytes() for mask in some.nodules} & known) == 3


def test_the_enhancer_is_applied_to_images_alone() -> None:
    changed = enhanced_slices(made(), lambda images: images + 0.25)
    torch.testing.assert_close(changed.images, made().images + 0.25)
    np.testing.assert_array_equal(changed.nodules, made().nodules)
    assert enhanced_slices(changed, None) is changed


def test_refusals() -> None:
    with pytest.raises(UserError, match="task 'stage' is unknown"):
        SliceItems(made(), "stage")
    with pytest.raises(UserError, match="none of the 1 slices has a nodule"):
        SliceItems(made().at([0]), "category")
