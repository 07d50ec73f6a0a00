from __future__ import annotations

import torch

from common.inference.latents import latents
from common.inference.preparing import LatentToImage, mask_to_image


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
