"""What the autoencoder's validation is fed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bundles.dcgan_covid.reconstruction import examples, image_to_image, mean_image_and_target

IMAGES = np.stack([np.full((1, 2, 2), level, np.float32) for level in (-1.0, 0.0, 0.4)])


class Made(SimpleNamespace):
    """As much of a dataset as is asked for."""

    images: Any = IMAGES

    def __len__(self) -> int:
        return len(self.images)


def test_the_target_is_the_input() -> None:
    image, target = image_to_image({"image": torch.ones(2, 1, 4, 4), "class": torch.zeros(2)}, "cpu")
    assert image is target and image.shape == (2, 1, 4, 4)


def test_the_baseline_predicts_the_mean_training_image() -> None:
    target = torch.from_numpy(IMAGES[2:].repeat(5, axis=0))
    output = {"pred": torch.zeros_like(target), "label": target, "image": target}
    mean, truth, _ = mean_image_and_target(Made())(output)  # type: ignore[arg-type]
    assert mean.shape == truth.shape == (5, 1, 2, 2)
    torch.testing.assert_close(mean, torch.full_like(target, -0.2))
    torch.testing.assert_close(truth, target)


def test_examples_are_spread_over_the_set() -> None:
    many = Made(images=np.arange(15, dtype=np.float32)[:, None, None, None].repeat(4, 2).repeat(4, 3))
    shown = examples(many)  # type: ignore[arg-type]
    assert shown["image"][:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert torch.equal(shown["latent"], shown["image"])
    assert len(examples(Made())["image"]) == 3  # type: ignore[arg-type]
