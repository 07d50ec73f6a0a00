from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.augment import LIGHT, Augmentation
from common.data.images import ImageDataset
from common.data.samples import Sample
from common.data.sampling import Draw
from common.errors import UserError


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
    dataset = ImageDataset(samples, ["a", "b"], 16)
    item = dataset[2]
    assert set(item) == {"image", "class", "sample"} and item["class"] == 1 and item["sample"] == 2
    assert item["image"].shape == (1, 16, 16) and item["image"].dtype == torch.float32
    assert dataset.counts() == {"a": 1, "b": 2}
    assert (item["image"][0, :4] == -1).all() and item["image"][0, 8, 0] == pytest.approx(2 * 250 / 255 - 1)
    assert (ImageDataset(samples, ["a", "b"], 16, fit="stretch")[2]["image"][0, :, :4] > 0.4).all()


def test_flips_double_the_set_in_the_dataset(samples: list[Sample]) -> None:
    dataset = ImageDataset(samples, ["a", "b"], 16, flips=True)
    assert len(dataset) == len(dataset.samples) == len(dataset.images) == 6
    for index in range(3):
        assert torch.equal(dataset[index + 3]["image"], dataset[index]["image"].flip(-1))
        assert dataset[index + 3]["class"] == dataset[index]["class"]
        assert dataset.samples[index + 3] is dataset.samples[index]
        assert not torch.equal(dataset[index + 3]["image"], dataset[index]["image"])
    plain = ImageDataset(samples, ["a", "b"], 16)
    np.testing.assert_array_equal(plain.with_flips().images, dataset.images)
    assert len(plain) == 3 and dataset.counts() == {"a": 2, "b": 4}


def test_augmentation_repeats_by_visit(samples: list[Sample]) -> None:
    dataset = ImageDataset(samples, ["a", "b"], 16, flips=True, augment=Augmentation(shift=0.2), seed=3)
    first, again, other = (dataset[Draw(epoch, 4)] for epoch in (1, 1, 2))
    assert torch.equal(first["image"], again["image"]) and not torch.equal(first["image"], other["image"])
    assert first["class"] == 0 and torch.equal(dataset[4]["image"], dataset[1]["image"].flip(-1))


def test_light_augmentation_is_drawn_anew_at_each_visit(samples: list[Sample]) -> None:
    dataset = ImageDataset(samples, ["a", "b"], 16, augment=LIGHT, seed=3)
    visits = [dataset[Draw(epoch, 1)]["image"] for epoch in range(6)]
    assert all(not torch.equal(visits[a], visits[b]) for a in range(6) for b in range(a))
    assert all(visit[0, 4:12, :6].mean() > visit[0, 4:12, 10:].mean() for visit in visits)  # none is mirrored
    assert torch.equal(dataset[1]["image"], ImageDataset(samples, ["a", "b"], 16)[1]["image"])


def test_refusals(samples: list[Sample]) -> None:
    with pytest.raises(UserError, match="all 2 images are the same"):
        ImageDataset([samples[0], samples[0]], ["b"], 16)
    with pytest.raises(UserError, match="fit 'x' is unknown"):
        ImageDataset(samples, ["a", "b"], 16, fit="x")
    samples[1].image.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.png"):
        ImageDataset(samples, ["a", "b"], 16)
