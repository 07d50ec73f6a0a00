"""The sheet of samples on a plane of the generator's latent space."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundles.dcgan_covid.plane import plane_atlas, plane_latents, three_seeds
from common.errors import UserError
from common.inference.drawing import draw_images
from common.inference.latents import latents
from tests.bundles.dcgan_covid.made_model import CLASSES, LATENT, SIZE, make_generator


def test_a_flat_plane_runs_right_to_b_and_down_to_c() -> None:
    a, b, c = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 4.0])
    grid = plane_latents(torch.stack([a, b, c]), 3, "linear")
    assert grid.shape == (3, 3, 3)
    assert grid[0, 1].tolist() == [1, 1, 0] and grid[1, 0].tolist() == [1, 0, 2]
    assert grid[2, 2].tolist() == [1, 2, 4]


def test_on_the_shell_every_place_has_the_length_of_a_draw() -> None:
    anchors = latents(0, range(3), 100)
    flat, shell = (plane_latents(anchors, 5, path) for path in ("linear", "spherical"))
    norms = anchors.norm(dim=1)
    assert flat[4, 4].norm() > 1.5 * norms.mean()
    assert shell.norm(dim=2).min() >= norms.min() - 1e-3 and shell.norm(dim=2).max() <= norms.max() + 1e-3
    for (row, column), anchor in zip([(0, 0), (0, 4), (4, 0)], anchors, strict=True):
        torch.testing.assert_close(shell[row, column], anchor)
    torch.testing.assert_close(
        torch.cosine_similarity(shell, flat, dim=2), torch.ones(5, 5), atol=1e-5, rtol=0
    )


def test_the_corners_are_the_seeds_samples() -> None:
    network, _ = make_generator()
    atlas = plane_atlas(network, {}, "4,8,15", size=24, pixels=SIZE)
    assert atlas.samples.shape == (24, 24, SIZE, SIZE) and atlas.samples.dtype == np.uint8
    assert atlas.corners == ["seed 4", "seed 8", "seed 15", "8 + 15 − 4"]
    noise = torch.cat([latents(seed, [0], LATENT) for seed in (4, 8, 15)])
    expected = draw_images(network, noise)[:, 0].add(1).mul(127.5).round().numpy()
    for shown, image in zip(
        (atlas.samples[0, 0], atlas.samples[0, -1], atlas.samples[-1, 0]), expected, strict=True
    ):
        assert np.abs(shown.astype(float) - image).max() <= 1
    assert expected.std() > 10


def test_a_conditional_models_plane_has_one_class() -> None:
    network, _ = make_generator(classes=3)
    info = {"classes": CLASSES}
    sheets = [plane_atlas(network, info, (1, 2, 3), 3, 8, category=name).samples for name in (None, *CLASSES)]
    assert np.array_equal(sheets[0], sheets[1])
    assert not np.array_equal(sheets[1], sheets[3])
    with pytest.raises(UserError, match="no class grave"):
        plane_atlas(network, info, (1, 2, 3), 3, 8, category="grave")


@pytest.mark.parametrize("seeds", ["1,2", "1,2,2", (1, 2, 3, 4)])
def test_a_plane_needs_three_points(seeds: object) -> None:
    with pytest.raises(UserError, match="a plane needs three different seeds"):
        three_seeds(seeds)  # type: ignore[arg-type]


def test_other_refusals() -> None:
    network, _ = make_generator()
    with pytest.raises(UserError, match="plane_seeds x: give a whole number"):
        three_seeds("1,x,3")
    with pytest.raises(UserError, match="atlas 1: give a whole number of at least 2"):
        plane_atlas(network, {}, (1, 2, 3), 1)
    with pytest.raises(UserError, match="path 'curved' is unknown"):
        plane_atlas(network, {}, (1, 2, 3), 3, path="curved")
    with pytest.raises(UserError, match="trained without classes"):
        plane_atlas(network, {}, (1, 2, 3), 3, category="covid")
