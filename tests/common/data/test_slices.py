from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.augment import Augmentation
from common.data.layouts import find_volumes
from common.data.loading import example_batch, make_loader, ordered_loader
from common.data.samples import Sample
from common.data.sampling import BatchStream, Draw
from common.data.slices import SliceDataset
from common.data.store.request import Geometry, Intensity, Request
from common.data.store.store import SliceStore
from common.data.stored_pairs import StoredPair, stored_pair
from common.data.structures import LabelSet
from common.errors import UserError

SIZE = 16  # that of the made volumes: nothing is resized
PLAIN = Augmentation(flip=1.0, shift=0.0, scale=0.0, rotation=0.0)


@pytest.fixture
def pairs(hearts: Path, tmp_path: Path) -> Callable[..., list[StoredPair]]:
    """The converted set."""

    def joined(label_set: LabelSet | None, axis: str = "axial") -> list[StoredPair]:
        store = SliceStore(tmp_path / "store", Geometry(SIZE, axis))
        samples, kind = find_volumes(hearts), "image" if label_set is None else "label"
        images = store.convert([Request(s.image, "image", Intensity()) for s in samples])
        second = [s.mask if label_set else s.image for s in samples]
        wanted = [Request(path or Path(), kind, None if label_set else Intensity()) for path in second]
        labels = store.convert(wanted)
        return [stored_pair(*trio, label_set) for trio in zip(samples, images, labels, strict=True)]

    return joined


@pytest.fixture
def dataset(pairs: Callable[..., list[StoredPair]]) -> SliceDataset:
    """All seven classes, 20 of 25 slices."""
    return SliceDataset(pairs(LabelSet()), LabelSet())


def shades(label: torch.Tensor) -> torch.Tensor:
    """What the made images are where the label is 0..7: -1000 HU, then 0, 80, ... 480 of -200..600 HU."""
    return torch.where(label > 0, (80 * (label - 1) + 200) / 400 - 1, torch.tensor(-1.0))


def test_slices_are_registered_and_scaled(dataset: SliceDataset, heart_label: Callable) -> None:
    assert len(dataset) == 20 and dataset.dropped == 5
    item = dataset[5]  # patient p1, slice 1
    assert item["image"].shape == item["label"].shape == (1, SIZE, SIZE) and item["sample"] == 5
    assert item["image"].dtype == item["label"].dtype == torch.float32
    assert np.array_equal(item["label"][0], heart_label(1)[:, :, 1].T)
    assert torch.allclose(item["image"], shades(item["label"]), atol=1e-4)
    assert (dataset.samples[5].name, dataset.samples[5].patient) == ("p1-z001", "p1")


def test_a_batch_is_its_items(dataset: SliceDataset) -> None:
    visits = [3, Draw(1, 7), np.int64(0)]
    batch = dataset.__getitems__(visits)
    assert batch["image"].shape == (3, 1, SIZE, SIZE) and batch["sample"].tolist() == [3, 7, 0]
    for row, visit in enumerate(visits):
        for name in ("image", "label"):
            assert torch.equal(batch[name][row], dataset[visit][name])
    assert dataset.collate(batch) is batch
    with pytest.raises(IndexError):
        dataset[20]


def test_whole_arrays_and_spread(dataset: SliceDataset) -> None:
    assert dataset.images.shape == dataset.labels.shape == (20, 1, SIZE, SIZE)
    part = dataset.spread(3)
    assert [sample.name for sample in part.samples] == ["p0-z000", "p2-z002", "p4-z003"] and len(part) == 3
    assert np.array_equal(part.labels, dataset.labels[[0, 10, 19]]) and len(dataset) == 20
    assert np.array_equal(part[1]["image"], dataset.images[10]) and len(dataset.spread(99)) == 20
    assert example_batch(dataset, 4)["label"].shape == (4, 1, SIZE, SIZE)


def test_foreign_values_become_classes(pairs: Callable[..., list[StoredPair]]) -> None:
    label_set = LabelSet("LV,Ao", "{1: Ao, 2: LV, 3: background, 4: PA, 5: PA, 6: PA, 7: PA}")
    seen = SliceDataset(pairs(label_set), label_set)[1]["label"]
    plain = SliceDataset(pairs(LabelSet()), LabelSet())[1]["label"]
    assert Counter(seen[plain == 1].tolist()).keys() == {2.0} and set(seen[plain == 2].tolist()) == {1.0}
    assert set(seen[(plain != 1) & (plain != 2)].tolist()) == {0.0}


def test_coarse_labels_come_with_draws_alone(pairs: Callable[..., list[StoredPair]]) -> None:
    label_set = LabelSet(coarse=True)
    dataset = SliceDataset(pairs(label_set), label_set, seed=3, coarse=0.3)
    whole = {1.0: 8.0, 2.0: 8.0, 3.0: 8.0, 4.0: 8.0, 5.0: 8.0, 6.0: 6.0, 7.0: 7.0, 0.0: 0.0}
    merged = 0
    for epoch in range(20):
        for index in range(10):
            seen, plain = dataset[Draw(epoch, index)]["label"], dataset[index]["label"]
            assert set(plain.unique().tolist()) <= set(range(8))
            if (seen == 8).any():
                merged += 1
                assert torch.equal(seen, plain.clone().apply_(lambda value: whole[value]))
            else:
                assert torch.equal(seen, plain)
    assert 40 <= merged <= 80
    first = dataset.__getitems__([Draw(2, index) for index in range(20)])["label"]
    assert torch.equal(first, dataset.__getitems__([Draw(2, index) for index in range(20)])["label"])
    other = SliceDataset(dataset.pairs, label_set, seed=4, coarse=0.3)
    assert not torch.equal(first, other.__getitems__([Draw(2, index) for index in range(20)])["label"])


def test_coarse_is_checked(pairs: Callable[..., list[StoredPair]]) -> None:
    with pytest.raises(UserError, match="probability"):
        SliceDataset(pairs(LabelSet()), LabelSet(), coarse=1.5)
    with pytest.raises(UserError, match="the class whole_heart"):
        SliceDataset(pairs(LabelSet()), LabelSet(), coarse=0.5)
    with pytest.raises(UserError, match="set coarse to 0"):
        SliceDataset(pairs(None), None, coarse=0.5)


def test_augmentation_moves_image_and_label_alike(pairs: Callable[..., list[StoredPair]]) -> None:
    dataset = SliceDataset(pairs(LabelSet()), LabelSet(), augment=PLAIN)
    drawn, plain = dataset[Draw(0, 6)], dataset[6]
    assert torch.equal(drawn["label"], plain["label"].flip(-1))
    assert torch.allclose(drawn["image"], plain["image"].flip(-1), atol=1e-6)
    moved = SliceDataset(dataset.pairs, LabelSet(), augment=Augmentation(), seed=1)
    assert torch.equal(moved[Draw(3, 6)]["image"], moved[Draw(3, 6)]["image"])
    assert not torch.equal(moved[Draw(3, 6)]["image"], moved[Draw(4, 6)]["image"])
    assert set(moved[Draw(3, 6)]["label"].unique().tolist()) <= set(range(8))


def test_an_image_as_condition(pairs: Callable[..., list[StoredPair]]) -> None:
    dataset = SliceDataset(pairs(None), None, augment=Augmentation(gamma=0.5))
    assert len(dataset) == 25 and dataset.dropped == 0  # nothing counts as empty
    assert torch.equal(dataset[7]["label"], dataset[7]["image"]) and dataset.labels.min() == -1
    drawn = dataset[Draw(0, 7)]  # the gray curve is the target's alone
    assert not torch.equal(drawn["label"], drawn["image"]) and drawn["label"].min() >= -1


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_the_way_back(pairs: Callable[..., list[StoredPair]], axis: str, heart_image: Callable) -> None:
    dataset = SliceDataset(pairs(LabelSet(), axis), LabelSet(), min_pixels=0)
    volume, index = dataset.volume_of(len(dataset) - 1)
    assert (volume.source.name, index) == ("p4.nii.gz", volume.depth - 1)
    assert dataset.window_of(0) == (-200.0, 600.0) and not dataset.nominal_hu
    back = list(dataset.volumes(dataset.images))
    assert len(back) == 5
    for pair, restored in back:
        display = np.swapaxes(pair_label(pair.sample), 0, 1)  # (W, H, D) to (H, W, D)
        expected = np.maximum(heart_image(display), -200)
        # Coronal and sagittal planes are stretched from 5 to 16 rows and back.
        assert restored.shape == expected.shape
        assert np.abs(restored - expected).mean() < (0.1 if axis == "axial" else 40)


def test_slices_left_out_come_back_as_air(dataset: SliceDataset) -> None:
    _, restored = next(iter(dataset.volumes(np.ones_like(dataset.images))))
    assert (restored[:, :, :4] == 600).all() and (restored[:, :, 4] == -200).all()


def pair_label(sample: Sample) -> np.ndarray:
    """The label file's array."""
    return np.asarray(nib.load(sample.mask).dataobj)


def test_it_can_be_pickled(dataset: SliceDataset) -> None:
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[4]["image"], dataset[4]["image"])


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_serve_the_stream_from_any_position(
    pairs: Callable[..., list[StoredPair]], workers: int
) -> None:
    label_set = LabelSet(coarse=True)
    dataset = SliceDataset(pairs(label_set), label_set, augment=Augmentation(), seed=1, coarse=0.5)
    stream = BatchStream(len(dataset), batch_size=4, seed=9)
    batches = list(islice(make_loader(dataset, stream, workers), 7))  # into the second epoch
    for position, batch in enumerate(batches):
        expected = dataset.__getitems__(stream.batch(position))
        assert all(torch.equal(batch[name], expected[name]) for name in ("image", "label", "sample"))
    resumed = BatchStream(len(dataset), batch_size=4, seed=9)
    resumed.position = 6
    again = next(iter(make_loader(dataset, resumed, workers)))
    assert torch.equal(again["image"], batches[6]["image"])
    assert torch.equal(again["label"], batches[6]["label"])


@pytest.mark.parametrize(("batch_size", "unseen"), [(5, 0), (3, 2)])
def test_ranks_share_an_epoch(dataset: SliceDataset, batch_size: int, unseen: int) -> None:
    for epoch in range(2):
        seen: list[int] = []
        for rank in range(2):
            stream = BatchStream(len(dataset), batch_size, seed=2, rank=rank, ranks=2)
            stream.position = epoch * stream.batches_per_epoch
            for batch in islice(make_loader(dataset, stream), stream.batches_per_epoch):
                seen += batch["sample"].tolist()
        assert len(seen) == len(set(seen)) == 20 - unseen


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_sees_all_in_order(dataset: SliceDataset, workers: int) -> None:
    batches = list(ordered_loader(dataset, 8, workers))
    assert [len(batch["image"]) for batch in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([batch["label"] for batch in batches]), torch.from_numpy(dataset.labels))


def test_the_noise_of_a_slice_goes_by_its_volume_and_its_mm(
    pairs: Callable[..., list[StoredPair]], dataset: SliceDataset
) -> None:
    batch = dataset.__getitems__([4, 5, 6])
    here = [(dataset.samples[index].image, dataset.samples[index].index) for index in (4, 5, 6)]
    assert here[0][0] == here[1][0] == here[2][0]
    assert len(set(batch["noise_key"].tolist())) == 1 and batch["noise_key"][0] != dataset[0]["noise_key"]
    depth = dataset.pairs[1].label.spacing[2]
    assert batch["noise_mm"].tolist() == pytest.approx([index * depth for _, index in here])
    assert "noise_key" not in dataset[Draw(0, 5)]  # training draws it anew at each visit
    across = SliceDataset(pairs(LabelSet(), "coronal"), LabelSet())
    place = across.samples[3].index
    assert across[3]["noise_mm"] == pytest.approx(place * across.pairs[0].label.spacing[0])
