from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from common.data.loaders import SampleIndex
from common.errors import UserError
from common.trust.gather_sets import check_unseen
from common.trust.image_sets import TrainingSlices, split_by_patient
from tests.common.trust.made import a_set, pictures


def test_halves_of_different_patients() -> None:
    real = a_set(pictures(20, 0), "real", [f"p{place // 4}" for place in range(20)])
    here, there = split_by_patient(real, 3)
    assert not set(here.patients) & set(there.patients) and len(here) + len(there) == 20
    assert 8 <= len(here) <= 12
    turned = real.select(range(19, -1, -1))
    assert set(split_by_patient(turned, 3)[0].patients) == set(here.patients)
    splits = {frozenset(split_by_patient(real, seed)[0].patients) for seed in range(8)}
    assert len(splits) > 1


def test_held_out_patients_of_the_training_are_refused() -> None:
    heldout = a_set(pictures(3, 0), "other", ["a", "b", "c"])
    check_unseen(heldout, {"train": ["d"], "val": ["e"], "test": ["b"]})
    check_unseen(heldout, {})
    for train, found in ((["c", "b"], "b"), (["scan2"], "scan2")):
        scans = replace(heldout, scans=["a", "b", "scan2"]) if found == "scan2" else heldout
        told = f"other: patient {found} is held out, but the model was trained or chosen on it"
        for part in ("train", "val"):
            with pytest.raises(UserError, match=told):
                check_unseen(scans, {part: train})


def test_the_models_own_training_patients_decide() -> None:
    real = a_set(pictures(6, 0), "real", ["a", "a", "b", "c", "c", "d"])
    here, there = split_by_patient(real, training=["b", "c", "elsewhere"])
    assert list(here.patients) == ["b", "c", "c"] and list(there.patients) == ["a", "a", "d"]
    persons = replace(real, scans=["a1", "a2", "b", "c", "c", "d"])
    assert list(split_by_patient(persons, training=["a2"])[0].names) == ["real_000.png", "real_001.png"]
    with pytest.raises(UserError, match="real: 4 patients, none of them among the model's training"):
        split_by_patient(real, training=["x"])
    with pytest.raises(UserError, match="real: 1 patients, which cannot be split"):
        split_by_patient(a_set(pictures(2, 0), "real", ["a", "a"]))


def test_chosen_images_keep_what_belongs_to_them() -> None:
    labels = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 32, 32)
    real = replace(a_set(pictures(4, 0), "real"), labels=labels, structures=("x",), scans=list("abcd"))
    taken = real.select([3, 1])
    assert taken.labels is not None and taken.labels[:, 0, 0, 0].tolist() == [3, 1]
    assert list(taken.scans) == ["d", "b"] and taken.folder == "real" and taken.structures == ("x",)


def test_training_slices_and_their_maps_are_moved_alike_and_repeatably() -> None:
    labels = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    labels[:, :, 4:14, 18:28] = 2
    slices = TrainingSlices(labels.float() - 1, {"label": labels, "class": torch.tensor([3, 1])}, seed=5)
    first, again, later = (slices[SampleIndex(1, epoch)] for epoch in (0, 0, 1))
    assert torch.equal(first["image"], again["image"]) and not torch.equal(first["image"], later["image"])
    assert set(first["label"].unique().tolist()) == {0.0, 2.0} and int(first["class"]) == 1
    differing = (first["image"] > 0) != (first["label"] > 1)
    assert differing.float().mean() < 0.03 and not torch.equal(first["label"], labels[1])
    assert torch.equal(slices[1]["image"], labels[1].float() - 1)
    assert torch.equal(slices[1]["label"], labels[1].float())
