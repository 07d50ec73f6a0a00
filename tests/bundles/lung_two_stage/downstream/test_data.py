"""Slices with their nodules, and what training sees of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import RandFlipd

from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.downstream.data import (
    SliceItems,
    Slices,
    Sources,
    bank_slices,
    composite_slices,
    enhanced_slices,
    read_sources,
)
from common.data.intensity import WINDOWS
from common.data.loaders import SampleIndex
from common.errors import UserError
from tests.bundles.lung_two_stage.made_work import made_work, slice_bank, write_composites


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
    assert made().subset([0]).category.tolist() == [-1]


def test_places_may_repeat_and_sets_be_joined() -> None:
    twice = made().subset([2, 2, 0]).concatenate(made())
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
    items = SliceItems(shown, augmentation=RandFlipd(["image", "label"], 1.0, spatial_axis=1))
    flipped = items[SampleIndex(2, 0)]
    assert torch.equal(flipped["label"], items[2]["label"].flip(-1))
    assert torch.equal(flipped["image"] > 0.5, flipped["label"] > 0)


def test_banks_and_composites(tmp_path: Path) -> None:
    bank = slice_bank(["a", "b"], 2, [1, 0])
    slices = bank_slices(bank, WINDOWS["lung"])
    assert slices.patients == ["a", "a", "b", "b"] and slices.has_nodule.tolist() == [True, False] * 2
    folder = write_composites(tmp_path, 5, 3)
    some = composite_slices(folder, WINDOWS["lung"], 3)
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
        SliceItems(made().subset([0]), "category")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_work(tmp_path_factory.mktemp("work"))


def read(work: Path, **settings: object) -> Sources:
    arguments = {"positives": 3, "synthetic": 16, "held_out": 0.25, **settings}
    return read_sources(
        work / "extraction", work / "composites", work / "extraction" / "healthy_slices", **arguments
    )


def shares(sources: Sources, regime: str) -> tuple[int, int]:
    """Slices with nodules, and all."""
    part = sources.training(regime)
    return int(part.has_nodule.sum()), len(part)


def test_each_regime_has_its_shares(work: Path) -> None:
    sources = read(work)
    assert shares(sources, "real") == (3, 19)  # 12 healthy slices, 4 others without and 3 of 4 with
    assert shares(sources, "oversampled") == (16, 32)
    assert shares(sources, "synthetic") == (8, 16)
    assert shares(sources, "both") == (11, 35)
    with pytest.raises(UserError, match="regime 'all' is unknown"):
        sources.training("all")


def test_patients_are_in_one_part_only(work: Path) -> None:
    sources = read(work)
    parts = [set(p.patients) - {""} for p in (sources.real, sources.validation, sources.test)]
    assert [len(part) for part in parts] == [5, 2, 4]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert set(sources.synthetic.patients) == {"", "a", "b", "c"}


def test_what_composites_lie_on_goes_their_way(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "bundles.lung_two_stage.downstream.data.load_enhancer"
    monkeypatch.setattr(target, lambda path: lambda images: images.flip(-1))
    plain, changed = read(work), read(work, enhancer_path="model.pt")
    has = plain.synthetic.has_nodule
    np.testing.assert_array_equal(plain.synthetic.images[has], changed.synthetic.images[has])
    np.testing.assert_array_equal(plain.synthetic.images[~has].flip(-1), changed.synthetic.images[~has])


def test_a_test_patient_of_the_training_is_refused(tmp_path: Path) -> None:
    work = made_work(tmp_path)
    slice_bank(["t", "m"], 2, [1, 0]).save(work / "extraction" / "tests")
    with pytest.raises(UserError, match="patient m is in"):
        read(work)
    slice_bank(["t", "u"], 2, [0]).save(work / "extraction" / "tests")
    with pytest.raises(UserError, match="slices with nodules and without are needed"):
        read(work)
