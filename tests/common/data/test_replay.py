from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import (
    Compose,
    OneOf,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandShiftIntensityd,
    ScaleIntensityd,
)
from torch.utils.data import DataLoader

from common.data.loaders import InfiniteBatchSampler, SampleIndex
from common.data.replay import (
    ReplayDataset,
    ReplayTransforms,
    flatten_transforms,
    noise_coordinates,
    slice_noise,
)
from common.errors import UserError

KEYS = ("image", "label")


def stock() -> Compose:
    """Random transforms as MONAI has them, after a deterministic one."""
    affine = RandAffined(KEYS, prob=0.8, rotate_range=0.5, mode=["bilinear", "nearest"])
    return Compose([ScaleIntensityd("image"), Compose([affine]), RandGaussianNoised("image", prob=0.7)])


def items(count: int = 6, size: int = 12) -> list[dict[str, torch.Tensor]]:
    """Random images with masks."""
    images = torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(3))
    return [{"image": image, "label": (image > 0.5).float()} for image in images]


@pytest.fixture(params=[0, 2], ids="workers-{}".format)
def batches(request: pytest.FixtureRequest) -> list[dict[str, torch.Tensor]]:
    """Eight batches with 0 and with 2 workers."""
    return loaded(0, 8, request.param)


def loaded(position: int, count: int, workers: int) -> list[dict[str, torch.Tensor]]:
    sampler = InfiniteBatchSampler(6, 2, seed=5)
    sampler.position = position
    loader = DataLoader(ReplayDataset(items(), stock(), seed=5), batch_sampler=sampler, num_workers=workers)
    return [batch for batch, _ in zip(loader, range(count), strict=False)]


def test_stock_transforms_are_bitwise_the_same_from_any_position_and_with_any_workers(
    batches: list[dict[str, torch.Tensor]],
) -> None:
    resumed = loaded(5, 3, 0)
    for straight, again in zip(batches[5:], resumed, strict=True):
        assert all(torch.equal(straight[key], again[key]) for key in KEYS)
    dataset = ReplayDataset(items(), stock(), seed=5)
    assert not torch.equal(dataset[SampleIndex(0, 0)]["image"], dataset[SampleIndex(0, 1)]["image"])
    other = ReplayDataset(items(), stock(), seed=6)
    assert not torch.equal(dataset[SampleIndex(0, 0)]["image"], other[SampleIndex(0, 0)]["image"])


def test_an_inserted_transform_leaves_what_the_others_draw() -> None:
    noise, shift = RandGaussianNoised("image", prob=1.0), RandShiftIntensityd("image", offsets=1.0, prob=1.0)
    zeros = {"image": torch.zeros(1, 8, 8)}
    alone = ReplayTransforms([noise])(zeros, SampleIndex(2, 3))["image"]
    both = ReplayTransforms([shift, noise])(zeros, SampleIndex(2, 3))["image"]
    difference = both - alone
    assert difference.std() < 1e-6 and abs(float(difference.mean())) > 1e-3  # the shift and nothing else


def test_two_of_a_class_draw_different_numbers() -> None:
    noise = [RandGaussianNoised("image", prob=1.0, std=1.0, sample_std=False) for _ in range(2)]
    image = ReplayTransforms(noise)({"image": torch.zeros(1, 40, 40)}, SampleIndex(0, 0))["image"]
    assert float(image.std()) == pytest.approx(2**0.5, rel=0.1)  # twice the same noise would give 2


def test_a_plain_index_leaves_the_random_transforms_out() -> None:
    dataset = ReplayDataset(items(), [RandFlipd("image", prob=1.0), ScaleIntensityd("image")])
    image = items()[1]["image"]
    expected = (image - image.min()) / (image.max() - image.min())
    torch.testing.assert_close(dataset[1]["image"], expected)
    assert torch.equal(dataset[SampleIndex(1, 0)]["image"], dataset[1]["image"].flip((1, 2)))


def test_the_deterministic_part_runs_once() -> None:
    calls: list[int] = []
    dataset = ReplayDataset(items(3), [lambda item: calls.append(1) or item, RandFlipd("image")])  # type: ignore[func-returns-value]
    for epoch in range(4):
        dataset[SampleIndex(0, epoch)]
    assert len(calls) == 3


def test_results_are_plain_tensors_and_tracking_is_restored() -> None:
    tracked = {"image": MetaTensor(torch.rand(1, 8, 8)), "label": np.ones((1, 8, 8), np.float64)}
    item = ReplayTransforms(stock())(tracked, SampleIndex(0, 0))
    assert type(item["image"]) is type(item["label"]) is torch.Tensor and get_track_meta()
    assert item["label"].dtype == torch.float32


def test_flattening() -> None:
    choice = OneOf([RandFlipd("image", prob=1.0), RandGaussianNoised("image", prob=1.0)])
    scale = ScaleIntensityd("image")
    assert flatten_transforms([Compose([scale, Compose([choice])]), scale]) == [scale, choice, scale]
    assert flatten_transforms(None) == []
    replay = ReplayTransforms(choice, seed=1)
    image = {"image": torch.rand(1, 8, 8)}
    seen = [replay(image, SampleIndex(0, epoch))["image"] for epoch in (0, 0, 1, 2, 3)]
    assert torch.equal(seen[0], seen[1]) and not all(torch.equal(seen[0], other) for other in seen)
    with pytest.raises(UserError, match="'RandFlip' is no transform; write each as a _target_"):
        flatten_transforms(["RandFlip"])


SIDE = 48


def noise(name: str, mm: float = math.nan, seed: int = 0, channels: int = 2) -> np.ndarray:
    place = noise_coordinates(name, mm)
    return slice_noise(seed, place["noise_key"], place["noise_mm"], channels, SIDE)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_picture_has_the_noise_of_its_name_alone() -> None:
    found = noise("case_07")
    assert found.shape == (2, SIDE, SIDE) and found.dtype == np.float32
    np.testing.assert_array_equal(found, noise("case_07"))
    assert abs(float(found.mean())) < 0.06 and float(found.std()) == pytest.approx(1.0, abs=0.05)
    for other in (noise("case_08"), noise("case_07", seed=1), noise("case_07", 0.0)):
        assert abs(correlation(found, other)) < 0.06


@pytest.mark.parametrize(
    ("distance", "expected"), [(0.7, 0.970), (1.0, 0.939), (3.0, 0.570), (5.0, 0.210), (10.0, 0.002)]
)
@pytest.mark.parametrize("start", [-31.3, 0.0, 57.1])
def test_a_volume_has_one_field_without_columns(start: float, distance: float, expected: float) -> None:
    here, there = noise("scan", start, channels=6), noise("scan", start + distance, channels=6)
    assert float(here.std()) == pytest.approx(1.0, abs=0.04)
    assert correlation(here, there) == pytest.approx(expected, abs=0.03)
    assert abs(correlation(here, noise("other", start, channels=6))) < 0.05


def test_slices_are_white_within_and_in_any_order_the_same() -> None:
    forwards = [noise("scan", 0.9 * index) for index in range(12)]
    backwards = [noise("scan", 0.9 * index) for index in reversed(range(12))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert abs(correlation(forwards[5][:, 1:], forwards[5][:, :-1])) < 0.06
