from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.loading import make_loader
from common.data.perturb import Perturbation
from common.data.perturbed_slices import PerturbedSlices
from common.data.sampling import BatchStream, Draw
from common.data.slices import SliceDataset
from common.data.structure_data import StructureData
from common.errors import UserError

SIDE, DEPTH, PATIENTS = 48, 6, 6
AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hearts of two chambers whose image is a function of the label: a pool (500) in its wall (205)."""
    root = tmp_path_factory.mktemp("hearts")
    for name in ("images", "labels"):
        (root / name).mkdir()
    rows, columns, _ = np.mgrid[:SIDE, :SIDE, :DEPTH]
    for number in range(PATIENTS):
        distance = np.hypot(rows - 22 - number % 3, columns - 24)
        label = np.where(distance < 8, 500, np.where(distance < 12 + number % 2, 205, 0)).astype(np.uint16)
        image = np.where(label == 500, 300, np.where(label == 205, 100, -100)).astype(np.int16)
        for kind, voxels in (("images", image), ("labels", label)):
            nib.save(nib.Nifti1Image(voxels, AFFINE), root / kind / f"heart_{number}.nii.gz")
    return root


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> Any:
    def make(**settings: Any) -> StructureData:
        plain = {"perturb": {"elastic": 0.05, "growth": 0.03, "mix": 0.4}, "labels": "LV,Myo"}
        return StructureData(folder, SIDE, tmp_path / "store", **{**plain, **settings})

    return make


def test_the_annotation_is_the_true_label_and_fits_the_image(data: Any) -> None:
    part = data().train
    batch = part.__getitems__([Draw(0, n) for n in range(8)])
    plain = SliceDataset(part.pairs, data().label_set).__getitems__([Draw(0, n) for n in range(8)])
    assert torch.equal(batch["annotation"], plain["label"]) and torch.equal(batch["image"], plain["image"])
    assert batch["label"].dtype == torch.float32 and batch["label"].shape == batch["annotation"].shape
    assert set(batch["label"].unique().tolist()) == {0.0, 1.0, 2.0}
    different = (batch["label"] != batch["annotation"]).float().mean((1, 2, 3))
    assert (different > 0).all() and different.mean() < 0.2


def test_a_visit_depends_on_seed_epoch_and_sample_alone(data: Any) -> None:
    one, again, other = data().train, data().train, data(seed=1).train
    label = one[Draw(3, 5)]["label"]
    assert torch.equal(label, again.__getitems__([Draw(1, 0), Draw(3, 5)])["label"][1])
    for changed in (one[Draw(4, 5)], other[Draw(3, 5)]):
        assert not torch.equal(label, changed["label"])


def test_slices_that_are_no_visit_keep_their_own_perturbation(data: Any) -> None:
    """Validation sees the same labels each time, in a subset and under another seed too."""
    part, other = data().val, data(seed=7).val
    assert torch.equal(part[2]["label"], other[2]["label"])
    few = part.spread(3)
    assert isinstance(few, PerturbedSlices) and len(few) == 3
    last = len(part) - 1
    assert few.samples[2].name == part.samples[last].name
    assert torch.equal(few[2]["annotation"], part[last]["annotation"])
    assert np.array_equal(part.labels[4], part[4]["label"].numpy())
    assert np.array_equal(part.annotations[4], part[4]["annotation"].numpy())
    assert not np.array_equal(part.labels, part.annotations)


def test_coarse_labels_are_merged_after_the_perturbation_and_the_annotation_is_not(data: Any) -> None:
    part = data(coarse=1.0).train
    visit, still = part[Draw(0, 2)], part[2]
    assert part.classes == 3
    assert set(visit["label"].unique().tolist()) == {0.0, 3.0}
    assert set(visit["annotation"].unique().tolist()) == {0.0, 1.0, 2.0}
    assert set(still["label"].unique().tolist()) == {0.0, 1.0, 2.0}


def test_without_strengths_the_label_is_the_annotation(data: Any) -> None:
    part = data(perturb=Perturbation(elastic=0.0, growth=0.0)).train
    batch = part.__getitems__([Draw(0, 1), Draw(0, 2)])
    assert torch.equal(batch["label"], batch["annotation"])


@pytest.mark.parametrize("workers", [0, 1])
def test_loaders_give_the_same_batches_with_and_without_workers(data: Any, workers: int) -> None:
    part = data().train
    loader = make_loader(part, BatchStream(len(part), 4, seed=3), workers)
    batch = next(iter(loader))
    expected = part.__getitems__(BatchStream(len(part), 4, seed=3).batch(0))
    assert torch.equal(batch["label"], expected["label"])
    assert torch.equal(batch["annotation"], expected["annotation"])


def test_the_model_is_told(data: Any) -> None:
    made = data()
    assert made.metadata()["perturb"] == {"elastic": 0.05, "spacing": 0.15, "growth": 0.03, "mix": 0.4}
    assert "perturb" not in data(perturb=None).metadata()
    assert isinstance(made.test, PerturbedSlices)


def test_an_image_as_condition_cannot_be_perturbed(data: Any) -> None:
    with pytest.raises(UserError, match="perturb needs labels"):
        data(condition="image", condition_dir="images")
