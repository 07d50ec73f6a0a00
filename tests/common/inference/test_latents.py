from __future__ import annotations

import numpy as np
import pytest
import torch

from common.inference.latents import latents, noise_beside


class Images(list[int]):
    """A dataset whose image k has level k and class k modulo 2."""

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
