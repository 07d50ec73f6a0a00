from __future__ import annotations

import numpy as np
import pytest
import torch

from common.inference.latents import class_noise, example_noise, latents, noise_beside


class Images(list[int]):
    """A dataset whose image k has level k and class k modulo 2, of three classes."""

    class_names = ("none", "mild", "severe")

    @property
    def images(self) -> np.ndarray:
        return np.array(self, np.float32)[:, None, None, None]

    @property
    def classes(self) -> np.ndarray:
        return np.array(self, np.int64) % 2


def test_a_samples_noise_depends_on_seed_and_number_alone() -> None:
    whole = latents(3, range(5), 7)
    assert torch.equal(latents(3, [4, 1], 7), whole[[4, 1]])
    assert not torch.equal(latents(4, [1], 7), whole[[1]]) and latents(3, [], 7).shape == (0, 7)
    many = latents(0, range(400), 100)
    assert float(many.mean()) == pytest.approx(0, abs=0.02) and float(many.std()) == pytest.approx(
        1, abs=0.02
    )


def test_noise_and_as_many_real_images_spread_evenly() -> None:
    found = noise_beside(Images(range(9)), 4, count=3)  # type: ignore[arg-type]
    assert found["image"].flatten().tolist() == [0, 4, 8] and found["class"].tolist() == [0, 0, 0]
    assert torch.equal(found["latent"], latents(0, range(3), 4))
    few = noise_beside(Images(range(2)), 4, count=3)  # type: ignore[arg-type]
    assert len(few["latent"]) == len(few["image"]) == 2


def test_examples() -> None:
    batch = example_noise(Images(range(10)), 4, rows=2)  # type: ignore[arg-type]
    assert torch.equal(batch["latent"], latents(0, range(16), 4))
    assert batch["image"].flatten().tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert len(example_noise(Images(range(3)), 4)["image"]) == 3  # type: ignore[arg-type]


def test_a_row_for_each_class_that_is_there_with_the_same_noise() -> None:
    batch = class_noise(Images(range(5)), 4)  # type: ignore[arg-type]
    assert batch["class"].tolist() == [0] * 8 + [1] * 8
    assert torch.equal(batch["latent"][:8], batch["latent"][8:])
    assert torch.equal(batch["latent"][:8], latents(0, range(8), 4))
    assert batch["image"].flatten().tolist() == [0, 2, 4, 0, 2, 4, 0, 2] + [1, 3] * 4
