from __future__ import annotations

import json
import logging
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from common.data.augment import LIGHT, Augmentation
from common.data.layouts import find_samples
from common.data.loading import PairData, make_loader
from common.data.pairs import PairDataset
from common.data.sampling import BatchStream, Draw
from common.data.splits import split_by_patient, write_splits
from common.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six patients of four slices (24 x 20): a lesion wherever the slice number is not 3."""
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for patient in range(6):
        for number in range(4):
            mask = np.zeros((24, 20), np.uint8)
            mask[2:8, 2:6] = 255 * (number != 3)
            image = random.integers(0, 40, mask.shape, dtype=np.uint8) + np.uint8(150) * (mask > 0)
            Image.fromarray(image).save(tmp_path / "images" / f"p{patient}_{number}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / f"p{patient}_{number}.png")
    return tmp_path


def test_splits_shapes_and_ranges(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = PairData(folder, image_size=16, standardise="landmarks")
    assert len(data.train) + len(data.val) + len(data.test) == 18 and "dropped 6 slices" in caplog.text
    item = data.train[0]
    assert item["image"].shape == item["label"].shape == (1, 16, 16) and item["image"].dtype == torch.float32
    assert -1 <= item["image"].min() < item["image"].max() <= 1
    assert set(item["label"].unique().tolist()) == {0.0, 1.0} and item["sample"] == 0
    assert data.apart == {} and data.train.samples[0].patient not in {s.patient for s in data.test.samples}


def test_image_and_mask_stay_registered(folder: Path) -> None:
    dataset = PairDataset(find_samples(folder), 24, augment=Augmentation(flip=1.0), seed=5)
    for visit in (0, Draw(2, 0)):
        image, label = dataset[visit]["image"][0], dataset[visit]["label"][0]
        assert image[label > 0].mean() - image[label == 0].mean() > 0.9
    assert dataset[Draw(2, 0)]["label"][0, :, 12:].sum() > dataset[Draw(2, 0)]["label"][0, :, :12].sum()


def test_metadata_is_json_and_rebuilds_the_look(folder: Path) -> None:
    data = PairData(folder, 16, standardise="histogram", window=[-1350, 150])
    metadata = json.loads(json.dumps(data.metadata()))
    assert metadata["nominal_hu"] is True and metadata["window_hu"] == [-1350, 150]
    again = PairData(
        folder, 16, window=[-1350, 150], parts=("test",), standardiser_state=metadata["standardiser"]
    )
    assert list(again.datasets) == ["test"] and np.array_equal(again.test.images, data.test.images)


def test_keeping_and_dropping_empty_masks(folder: Path) -> None:
    samples = find_samples(folder)
    assert len(PairDataset(samples, 16)) == 24
    assert len(PairDataset(samples, 16, empty_masks="drop")) == 18
    with pytest.raises(UserError, match="no slices left"):
        PairDataset(samples, 16, empty_masks="drop", min_lesion_pixels=1000)
    with pytest.raises(UserError, match="keep or drop"):
        PairDataset(samples, 16, empty_masks="remove")


def test_the_folders_own_splits_are_used(folder: Path) -> None:
    splits = split_by_patient(find_samples(folder), seed=77)
    write_splits(folder / "splits.json", splits)
    assert PairData(folder, 8, split_seed=1).splits == splits


def test_hu_volumes_are_not_standardised(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for patient in "abc":
        image = random.integers(-1000, 200, (9, 10, 2)).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "images" / f"{patient}.nii.gz")
        nib.save(
            nib.Nifti1Image(np.ones((9, 10, 2), np.uint8), np.eye(4)),
            tmp_path / "masks" / f"{patient}.nii.gz",
        )
    plain, landmarks = (PairData(tmp_path, 8, standardise=how) for how in ("none", "landmarks"))
    assert np.array_equal(plain.train.images, landmarks.train.images)
    assert landmarks.metadata()["nominal_hu"] is False


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_follows_the_stream(folder: Path, workers: int) -> None:
    dataset = PairDataset(find_samples(folder), 8, augment=Augmentation(), seed=1)
    stream = BatchStream(len(dataset), batch_size=3, seed=4)
    batches = list(islice(make_loader(dataset, stream, workers), 2))
    for position, batch in enumerate(batches):
        visits = stream.batch(position)
        assert batch["sample"].tolist() == [visit.sample for visit in visits]
        assert torch.equal(batch["image"], torch.stack([dataset[visit]["image"] for visit in visits]))


def test_slices_keep_their_shape_in_the_square(folder: Path) -> None:
    """Slices of 24 x 20 pixels with a lesion of 6 x 4."""
    extents, metadata = {}, {}
    for fit in ("pad", "stretch"):
        data = PairData(folder, 48, fit=fit, augment="auto")
        rows, columns = np.nonzero(data.train.labels[0, 0])
        extents[fit], metadata[fit] = (np.ptp(rows) + 1, np.ptp(columns) + 1), data.metadata()
        image = data.train.images[0, 0]
        assert (image[:, :4] == -1).all() == (image[:, 44:] == -1).all() == (fit == "pad")
        assert data.train.augment is LIGHT and data.val.augment is data.test.augment is None
    assert extents == {"pad": (12, 8), "stretch": (12, 9)}
    assert metadata["pad"]["fit"] == "pad" and metadata["stretch"]["fit"] == "stretch"
    assert metadata["pad"]["empty_masks"] == "drop"


def test_the_noise_of_an_item_goes_by_its_name(folder: Path) -> None:
    dataset = PairDataset(find_samples(folder), 8)
    keys = [dataset[index]["noise_key"] for index in range(len(dataset))]
    assert len(set(keys)) == len(keys) and np.isnan(dataset[0]["noise_mm"])
    assert PairDataset(find_samples(folder)[3:4], 8)[0]["noise_key"] == keys[3]
    assert "noise_key" not in dataset[Draw(0, 3)]  # training draws it anew at each visit


def test_mask_conventions_can_be_set(folder: Path) -> None:
    with pytest.raises(UserError, match="unexpected mask values 255"):
        PairData(folder, 8, mask_values=[1])
    assert PairData(folder, 8, mask_threshold=200).train.labels is not None


def test_another_folder_is_prepared_alike_and_must_hold_other_patients(folder: Path) -> None:
    data = PairData(folder, 8)
    with pytest.raises(UserError, match="is in the training split too"):
        data.whole(folder)
    other = folder / "other"
    for kind in ("images", "masks"):
        (other / kind).mkdir(parents=True)
        for file in (folder / kind).glob("p0_*.png"):
            (other / kind / file.name.replace("p0", "q0")).write_bytes(file.read_bytes())
    held = data.whole(other)
    assert [sample.patient for sample in held.samples] == ["q0"] * 3  # the slice without lesion is dropped
    original = PairDataset([s for s in find_samples(folder) if s.patient == "p0"], 8, empty_masks="drop")
    assert np.array_equal(held.images, original.images)


@pytest.mark.realdata
def test_shared_covid_slices(shared_data: Path) -> None:
    samples = find_samples(shared_data / "covid_lesions")
    groups = {name: [s for s in samples if s.group == name] for name in ("doctor", "pseudo")}
    assert len(groups["doctor"]) == 50 and len(groups["pseudo"]) == 800
    assert len({s.patient for s in groups["pseudo"]}) == 20 and len({s.name for s in samples}) == 850
    data = PairData(shared_data / "covid_lesions", 64, standardise="landmarks")
    parts = [{s.unit for s in part} for part in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) and len(data.apart["doctor"]) == 50
    # The mean of a scan's bright fifth varied fourfold before; all scans now agree.
    bright = [np.percentile(image, 80) for image in data.test.images]
    assert np.std(bright) < 0.05
