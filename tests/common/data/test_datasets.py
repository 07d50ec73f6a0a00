from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import RandAdjustContrastd
from PIL import Image

from common.data.datasets import SliceDataset, UnpairedDataset, warn_of_gray_values
from common.data.labels import LabelSet
from common.data.layouts import find_volumes
from common.data.loaders import InfiniteBatchSampler, SampleIndex, example_batch, make_loader, ordered_loader
from common.data.samples import Sample
from common.data.slice_cache import CachedPair, SliceCache, cached_pair
from common.data.slice_geometry import Geometry, Intensity, Request
from common.errors import UserError
from tests.common.data.made_sets import image_dataset, light, mirror
from tests.common.data.made_volumes import heart_image, heart_label


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Three wide pictures, darker from left to right, of two classes."""
    made = []
    for number, category in enumerate(("b", "a", "b")):
        gray = np.linspace(250, 10 * number, 16).round().astype(np.uint8)[None].repeat(8, 0)
        Image.fromarray(gray).save(tmp_path / f"{number}.png")
        made.append(Sample(tmp_path / f"{number}.png", None, str(number), category=category))
    return made


def test_items(samples: list[Sample]) -> None:
    dataset = image_dataset(samples, ["a", "b"], 16)
    item = dataset[2]
    assert set(item) == {"image", "class", "sample"} and item["class"] == 1 and item["sample"] == 2
    assert item["image"].shape == (1, 16, 16) and item["image"].dtype == torch.float32
    assert dataset.counts() == {"a": 1, "b": 2}
    assert (item["image"][0, :4] == -1).all() and item["image"][0, 8, 0] == pytest.approx(2 * 250 / 255 - 1)
    assert (image_dataset(samples, ["a", "b"], 16, fit="stretch")[2]["image"][0, :, :4] > 0.4).all()


def test_flips_double_the_set_in_the_dataset(samples: list[Sample]) -> None:
    dataset = image_dataset(samples, ["a", "b"], 16, flips=True)
    assert len(dataset) == len(dataset.samples) == len(dataset.images) == 6
    for index in range(3):
        assert torch.equal(dataset[index + 3]["image"], dataset[index]["image"].flip(-1))
        assert dataset[index + 3]["class"] == dataset[index]["class"]
        assert dataset.samples[index + 3] is dataset.samples[index]
        assert not torch.equal(dataset[index + 3]["image"], dataset[index]["image"])
    plain = image_dataset(samples, ["a", "b"], 16)
    np.testing.assert_array_equal(plain.with_flips().images, dataset.images)
    assert len(plain) == 3 and dataset.counts() == {"a": 2, "b": 4}


def test_augmentation_repeats_by_visit(samples: list[Sample]) -> None:
    dataset = image_dataset(samples, ["a", "b"], 16, flips=True, augmentation=light(16, ["image"]), seed=3)
    first, again, other = (dataset[SampleIndex(4, epoch)] for epoch in (1, 1, 2))
    assert torch.equal(first["image"], again["image"]) and not torch.equal(first["image"], other["image"])
    assert first["class"] == 0 and torch.equal(dataset[4]["image"], dataset[1]["image"].flip(-1))


def test_light_augmentation_is_drawn_anew_at_each_visit(samples: list[Sample]) -> None:
    dataset = image_dataset(samples, ["a", "b"], 16, augmentation=light(16, ["image"]), seed=3)
    visits = [dataset[SampleIndex(1, epoch)]["image"] for epoch in range(6)]
    assert all(not torch.equal(visits[a], visits[b]) for a in range(6) for b in range(a))
    assert all(visit[0, 4:12, :6].mean() > visit[0, 4:12, 10:].mean() for visit in visits)  # none is mirrored
    assert torch.equal(dataset[1]["image"], image_dataset(samples, ["a", "b"], 16)[1]["image"])


def test_refusals(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="all 2 images are the same"):
        image_dataset([samples[0], samples[0]], ["b"], 16)
    samples[1].image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.png"):
        image_dataset(samples, ["a", "b"], 16)


SIZE = 16  # that of the made volumes: nothing is resized


@pytest.fixture
def pairs(hearts: Path, tmp_path: Path) -> Callable[..., list[CachedPair]]:
    """The converted set."""

    def joined(label_set: LabelSet | None, axis: str = "axial") -> list[CachedPair]:
        store = SliceCache(tmp_path / "store", Geometry(SIZE, axis))
        samples, kind = find_volumes(hearts), "image" if label_set is None else "label"
        images = store.convert([Request(s.image, "image", Intensity()) for s in samples])
        second = [s.mask if label_set else s.image for s in samples]
        wanted = [Request(path or Path(), kind, None if label_set else Intensity()) for path in second]
        labels = store.convert(wanted)
        return [cached_pair(*trio, label_set) for trio in zip(samples, images, labels, strict=True)]

    return joined


@pytest.fixture
def dataset(pairs: Callable[..., list[CachedPair]]) -> SliceDataset:
    """All seven classes, 20 of 25 slices."""
    return SliceDataset(pairs(LabelSet()), LabelSet())


def shades(label: torch.Tensor) -> torch.Tensor:
    """What the made images are where the label is 0..7: -1000 HU, then 0, 80, ... 480 of -200..600 HU."""
    return torch.where(label > 0, (80 * (label - 1) + 200) / 400 - 1, torch.tensor(-1.0))


def test_slices_are_registered_and_scaled(dataset: SliceDataset) -> None:
    assert len(dataset) == 20 and dataset.dropped == 5
    item = dataset[5]  # patient p1, slice 1
    assert item["image"].shape == item["label"].shape == (1, SIZE, SIZE) and item["sample"] == 5
    assert item["image"].dtype == item["label"].dtype == torch.float32
    assert np.array_equal(item["label"][0], heart_label(1)[:, :, 1].T)
    assert torch.allclose(item["image"], shades(item["label"]), atol=1e-4)
    assert (dataset.samples[5].name, dataset.samples[5].patient) == ("p1-z001", "p1")


def test_a_batch_is_its_items(dataset: SliceDataset) -> None:
    visits = [3, SampleIndex(7, 1), np.int64(0)]
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


def test_foreign_values_become_classes(pairs: Callable[..., list[CachedPair]]) -> None:
    label_set = LabelSet("LV,Ao", "{1: Ao, 2: LV, 3: background, 4: PA, 5: PA, 6: PA, 7: PA}")
    seen = SliceDataset(pairs(label_set), label_set)[1]["label"]
    plain = SliceDataset(pairs(LabelSet()), LabelSet())[1]["label"]
    assert Counter(seen[plain == 1].tolist()).keys() == {2.0} and set(seen[plain == 2].tolist()) == {1.0}
    assert set(seen[(plain != 1) & (plain != 2)].tolist()) == {0.0}


def test_coarse_labels_come_with_draws_alone(pairs: Callable[..., list[CachedPair]]) -> None:
    label_set = LabelSet(coarse=True)
    dataset = SliceDataset(pairs(label_set), label_set, seed=3, coarse=0.3)
    whole = {1.0: 8.0, 2.0: 8.0, 3.0: 8.0, 4.0: 8.0, 5.0: 8.0, 6.0: 6.0, 7.0: 7.0, 0.0: 0.0}
    merged = 0
    for epoch in range(20):
        for index in range(10):
            seen, plain = dataset[SampleIndex(index, epoch)]["label"], dataset[index]["label"]
            assert set(plain.unique().tolist()) <= set(range(8))
            if (seen == 8).any():
                merged += 1
                assert torch.equal(seen, plain.clone().apply_(lambda value: whole[value]))
            else:
                assert torch.equal(seen, plain)
    assert 40 <= merged <= 80
    first = dataset.__getitems__([SampleIndex(index, 2) for index in range(20)])["label"]
    assert torch.equal(first, dataset.__getitems__([SampleIndex(index, 2) for index in range(20)])["label"])
    other = SliceDataset(dataset.pairs, label_set, seed=4, coarse=0.3)
    assert not torch.equal(first, other.__getitems__([SampleIndex(index, 2) for index in range(20)])["label"])


def test_coarse_is_checked(pairs: Callable[..., list[CachedPair]]) -> None:
    with pytest.raises(UserError, match="probability"):
        SliceDataset(pairs(LabelSet()), LabelSet(), coarse=1.5)
    with pytest.raises(UserError, match="the class whole_heart"):
        SliceDataset(pairs(LabelSet()), LabelSet(), coarse=0.5)
    with pytest.raises(UserError, match="set coarse to 0"):
        SliceDataset(pairs(None), None, coarse=0.5)


def test_augmentation_moves_image_and_label_alike(pairs: Callable[..., list[CachedPair]]) -> None:
    dataset = SliceDataset(pairs(LabelSet()), LabelSet(), augmentation=mirror())
    drawn, plain = dataset[SampleIndex(6, 0)], dataset[6]
    assert torch.equal(drawn["label"], plain["label"].flip(-1))
    assert torch.allclose(drawn["image"], plain["image"].flip(-1), atol=1e-6)
    moved = SliceDataset(dataset.pairs, LabelSet(), augmentation=light(16), seed=1)
    assert torch.equal(moved[SampleIndex(6, 3)]["image"], moved[SampleIndex(6, 3)]["image"])
    assert not torch.equal(moved[SampleIndex(6, 3)]["image"], moved[SampleIndex(6, 4)]["image"])
    assert set(moved[SampleIndex(6, 3)]["label"].unique().tolist()) <= set(range(8))


def test_an_image_as_condition(pairs: Callable[..., list[CachedPair]]) -> None:
    dataset = SliceDataset(pairs(None), None, augmentation=RandAdjustContrastd("image", prob=1.0))
    assert len(dataset) == 25 and dataset.dropped == 0  # nothing counts as empty
    assert torch.equal(dataset[7]["label"], dataset[7]["image"]) and dataset.labels.min() == -1
    drawn = dataset[SampleIndex(7, 0)]  # the gray curve is the target's alone
    assert not torch.equal(drawn["label"], drawn["image"]) and drawn["label"].min() >= -1


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_the_way_back(pairs: Callable[..., list[CachedPair]], axis: str) -> None:
    dataset = SliceDataset(pairs(LabelSet(), axis), LabelSet(), min_pixels=0)
    assert (dataset.pairs[0].image.lower, dataset.pairs[0].image.upper) == (-200.0, 600.0)
    assert dataset.samples[-1].index == dataset.pairs[-1].image.depth - 1 and not dataset.nominal_hu
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
    pairs: Callable[..., list[CachedPair]], workers: int
) -> None:
    label_set = LabelSet(coarse=True)
    dataset = SliceDataset(pairs(label_set), label_set, augmentation=light(16), seed=1, coarse=0.5)
    stream = InfiniteBatchSampler(len(dataset), batch_size=4, seed=9)
    batches = list(islice(make_loader(dataset, stream, workers), 7))  # into the second epoch
    for position, batch in enumerate(batches):
        expected = dataset.__getitems__(stream.batch(position))
        assert all(torch.equal(batch[name], expected[name]) for name in ("image", "label", "sample"))
    resumed = InfiniteBatchSampler(len(dataset), batch_size=4, seed=9)
    resumed.position = 6
    again = next(iter(make_loader(dataset, resumed, workers)))
    assert torch.equal(again["image"], batches[6]["image"])
    assert torch.equal(again["label"], batches[6]["label"])


@pytest.mark.parametrize(("batch_size", "unseen"), [(5, 0), (3, 2)])
def test_ranks_share_an_epoch(dataset: SliceDataset, batch_size: int, unseen: int) -> None:
    for epoch in range(2):
        seen: list[int] = []
        for rank in range(2):
            stream = InfiniteBatchSampler(len(dataset), batch_size, seed=2, rank=rank, ranks=2)
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
    pairs: Callable[..., list[CachedPair]], dataset: SliceDataset
) -> None:
    batch = dataset.__getitems__([4, 5, 6])
    here = [(dataset.samples[index].image, dataset.samples[index].index) for index in (4, 5, 6)]
    assert here[0][0] == here[1][0] == here[2][0]
    assert len(set(batch["noise_key"].tolist())) == 1 and batch["noise_key"][0] != dataset[0]["noise_key"]
    depth = dataset.pairs[1].label.spacing[2]
    assert batch["noise_mm"].tolist() == pytest.approx([index * depth for _, index in here])
    assert "noise_key" not in dataset[SampleIndex(5, 0)]  # training draws it anew at each visit
    across = SliceDataset(pairs(LabelSet(), "coronal"), LabelSet())
    place = across.samples[3].index
    assert across[3]["noise_mm"] == pytest.approx(place * across.pairs[0].label.spacing[0])


class Numbers:
    """Items that tell their number under a name."""

    def __init__(self, name: str, length: int) -> None:
        self.name, self.length = name, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> dict[str, int]:
        return {self.name: place, "sample": place}


def made(first: int, second: int, seed: int = 0) -> UnpairedDataset:
    return UnpairedDataset(Numbers("label", first), Numbers("image", second), seed)


@pytest.mark.parametrize("lengths", [(40, 7), (7, 40)])
def test_an_epoch_visits_the_longer_set_once_and_draws_of_the_shorter(lengths: tuple[int, int]) -> None:
    dataset = made(*lengths)
    stream = InfiniteBatchSampler(len(dataset), 4)
    visits = [dataset[draw] for position in range(10) for draw in stream.batch(position)]
    longer, shorter = ("label", "image") if lengths[0] > lengths[1] else ("image", "label")
    assert sorted(item[longer] for item in visits) == list(range(40))
    assert all(item["sample"] == item[longer] for item in visits)
    counts = Counter(item[shorter] for item in visits)
    assert set(counts) == set(range(7)) and max(counts.values()) > min(counts.values())


def test_the_partner_changes_by_epoch_and_repeats_by_seed() -> None:
    partners = [[made(30, 9)[SampleIndex(n, epoch)]["image"] for n in range(30)] for epoch in (0, 1, 0)]
    assert partners[0] == partners[2] != partners[1]
    assert partners[0] != [made(30, 9, seed=1)[SampleIndex(n, 0)]["image"] for n in range(30)]


def test_in_order_the_shorter_set_is_counted_round() -> None:
    assert [made(5, 2)[number]["image"] for number in range(5)] == [0, 1, 0, 1, 0]
    assert len(list(made(2, 3))) == 3  # iteration ends


def test_an_empty_side_is_refused() -> None:
    with pytest.raises(UserError, match="3 and 0 images"):
        made(3, 0)


class Chests:
    """Chests of a chest in [-1, 1]: air around a body, lungs in it."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0, count: int = 100) -> None:
        self.scale, self.shift, self.count = scale, shift, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = np.full((1, 32, 32), -1.0)
        image[0, 3:29, 2:30], image[0, 8:22, 6:14], image[0, 22:26, 14:18] = 0.48, -0.8, 0.9
        return {"image": image * self.scale + self.shift + 0.001 * index}


@pytest.mark.parametrize(
    ("slices", "says"),
    [
        (Chests(), ""),
        (Chests(count=1), ""),
        (Chests(count=0), ""),
        (Chests(scale=0.06, shift=-0.93), r"use \d+% of the range .*--window.*--hu_offset.*--source_range"),
        (Chests(scale=0.2, shift=0.5), "of the range"),
        (Chests(scale=-1), "white around a dark middle, as if inverted.*--source_range"),
    ],
)
def test_one_line_or_none(slices: Chests, says: str, caplog: pytest.LogCaptureFixture) -> None:
    warn_of_gray_values(slices, Path("set"))
    messages = [record.getMessage() for record in caplog.records]
    if not says:
        assert messages == []
        return
    (message,) = messages
    assert message.startswith("set: its images ") and "\n" not in message and re.search(says, message)
