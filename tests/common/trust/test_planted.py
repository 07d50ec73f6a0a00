from __future__ import annotations

import math

import pytest
import torch

from common.random import generator
from common.trust.planted import blurred, harmless, moved, planted_copies, principal_samples
from tests.common.trust.made_textures import pictures

STILL = torch.zeros(1)


def test_moved_by_hand() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 1, 2] = 1  # up, to the left of the middle
    assert torch.equal(moved(image, STILL, STILL, STILL, STILL), image)
    assert torch.allclose(moved(image, STILL, STILL, torch.tensor([1 / 8]), STILL)[..., 0, 2], torch.ones(1))
    turned = moved(image, STILL, torch.tensor([90.0]), STILL, STILL)
    assert float((turned - image.rot90(1, (-2, -1))).abs().max()) < 1e-5
    image = torch.zeros(1, 1, 8, 8)
    image[..., 3, 4] = 1
    twice = moved(image, torch.tensor([math.log(2)]), STILL, STILL, STILL)
    assert float(twice.sum()) == pytest.approx(4, rel=0.3)  # four times the area


def test_each_kind_of_copy_is_what_its_name_says() -> None:
    images = pictures(6, 0)
    found = planted_copies(images, generator(0, "planted"))
    assert list(found) == [
        "exact",
        "noisy",
        "flipped",
        "shifted",
        "zoomed",
        "rotated",
        "gray_inverted",
        "halves",
    ]
    assert all(part.shape == images.shape and part.dtype == images.dtype for part in found.values())
    assert torch.equal(found["flipped"].flip(-1), images) and torch.equal(found["gray_inverted"], -images)
    assert torch.equal(found["halves"][0, ..., :16], images[0, ..., :16])
    assert torch.equal(found["halves"][0, ..., 16:], images[1, ..., 16:])
    assert float((found["noisy"] - images).std()) == pytest.approx(0.1, rel=0.05)
    for name in ("shifted", "zoomed", "rotated"):
        assert not torch.allclose(found[name], images, atol=0.05)


def test_sets_that_are_no_copies() -> None:
    training, heldout = pictures(30, 0), pictures(10, 1)
    found = harmless(training, heldout, 8, generator(0, "harmless"))
    assert {name: len(part) for name, part in found.items()} == {
        "mean_image": 1,
        "pca": 8,
        "blurred_heldout": 8,
    }
    assert torch.allclose(found["mean_image"][0], training.mean(0), atol=1e-6)
    samples = principal_samples(training, 400, generator(0, "pca")).flatten(1)
    values = training.flatten(1)
    axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)[2]
    spread = [((part - values.mean(0)) @ axes[:10].T).std(0) for part in (samples, values)]
    assert torch.allclose(spread[0][:5], spread[1][:5], rtol=0.15) and float(spread[0][5:].max()) < 0.3
    assert float(blurred(heldout).std()) < float(heldout.std())
