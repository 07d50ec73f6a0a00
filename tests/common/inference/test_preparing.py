from __future__ import annotations

import torch

from common.data.noise import noise_place
from common.inference.latents import latents
from common.inference.preparing import ConditionToImage, LatentToImage, mask_to_image
from common.networks.texture import drawn_noise


def test_masks_in_images_out() -> None:
    batch = {"label": torch.ones(2, 1, 4, 4), "image": torch.zeros(2, 1, 4, 4)}
    label, image = mask_to_image(batch, "cpu")
    assert torch.equal(label, batch["label"]) and image is not None and torch.equal(image, batch["image"])
    assert mask_to_image({"label": batch["label"]})[1] is None


def test_noise_belongs_to_the_samples() -> None:
    batch = {"image": torch.zeros(2, 1, 4, 4), "sample": torch.tensor([5, 1]), "class": torch.tensor([2, 0])}
    noise, image = LatentToImage(6, seed=3)(batch, "cpu")
    assert torch.equal(noise, latents(3, [5, 1], 6)) and torch.equal(image, batch["image"])
    noise, image, given, named = LatentToImage(6, seed=3, classes=True)(batch, "cpu")
    assert torch.equal(noise, latents(3, [5, 1], 6)) and torch.equal(given[0], batch["class"]) and named == {}
    assert LatentToImage(6)({"sample": torch.tensor([0])})[1] is None


class Noisy(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.noise = drawn_noise(channels)


def batch_of(*names: str, size: int = 6) -> dict[str, object]:
    places = [noise_place(name, 1.5) for name in names]
    entries = {key: torch.tensor([place[key] for place in places]) for key in places[0]}
    return {
        "label": torch.zeros(len(names), 1, size, size),
        "image": torch.ones(len(names), 1, size, size),
    } | entries


def test_noise_goes_by_names_not_by_batches() -> None:
    prepare = ConditionToImage(Noisy(3), seed=7)
    label, image, (noise,), named = prepare(batch_of("a", "b", "c"), "cpu")
    assert noise.shape == (3, 3, 6, 6) and named == {} and image.mean() == 1 and label.sum() == 0
    other = prepare(batch_of("c", "a"))[2][0]
    assert torch.equal(other[0], noise[2]) and torch.equal(other[1], noise[0])
    assert not torch.equal(ConditionToImage(Noisy(3), seed=8)(batch_of("a"))[2][0][0], noise[0])


def test_without_noise_nothing_is_added() -> None:
    assert len(ConditionToImage(Noisy(0))(batch_of("a"))) == 2
    plain = {name: value for name, value in batch_of("a").items() if "noise" not in name}
    assert len(ConditionToImage(Noisy(3))(plain)) == 2
