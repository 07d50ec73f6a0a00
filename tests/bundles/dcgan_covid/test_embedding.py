"""Which images are on the map, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.dcgan_covid.autoencoder import DenseAutoencoder
from bundles.dcgan_covid.embedding import (
    Pictures,
    check_scale,
    embedded,
    generated_pictures,
    real_pictures,
)
from common.data.image_data import ImageData
from common.errors import UserError
from common.inference.drawing import draw_images
from common.inference.latents import latents
from tests.bundles.dcgan_covid.made_model import CLASSES, LATENT, SIZE, make_generator


def greys(levels: list[float], side: int = 8) -> torch.Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 1, side, side)


def test_real_images_of_all_splits_come_with_class_file_and_split(halves: Path) -> None:
    data = ImageData(halves, 16, "all", flips=False)
    pictures = real_pictures(data, most=1000)
    assert len(pictures) == 64 and pictures.class_names == ["real covid", "real noncovid"]
    assert np.bincount(pictures.classes).tolist() == [32, 32]
    first = data.train.samples[0]
    assert pictures.names[0] == f"{first.image.name} (train)"
    assert {name.split("(")[1] for name in pictures.names} == {"train)", "val)", "test)"}
    np.testing.assert_array_equal(pictures.images[:1], data.train.images[:1])


def test_too_many_real_images_are_thinned_evenly(halves: Path) -> None:
    data = ImageData(halves, 16, "all", flips=False)
    whole, some = real_pictures(data, 64), real_pictures(data, 4)
    assert some.names == [whole.names[place] for place in (0, 21, 42, 63)]
    assert torch.equal(some.images, whole.images[[0, 21, 42, 63]])


def test_generated_images_are_the_seeds_samples_at_the_autoencoders_size() -> None:
    network, _ = make_generator()
    pictures = generated_pictures(network, {}, 3, seed=5, image_size=SIZE)
    torch.testing.assert_close(pictures.images, draw_images(network, latents(5, range(3), LATENT)))
    assert pictures.names[2] == "sample 2 of seed 5" and pictures.class_names == ["generated"]
    smaller = generated_pictures(network, {}, 3, seed=5, image_size=SIZE // 2).images
    torch.testing.assert_close(smaller.mean((2, 3)), pictures.images.mean((2, 3)), atol=0.05, rtol=0)
    conditional, _ = make_generator(classes=3)
    names = generated_pictures(conditional, {"classes": CLASSES}, 4, 0, SIZE).names
    assert names[1:] == ["sample 1 of seed 0, mild", "sample 2 of seed 0, severe", "sample 3 of seed 0, none"]


def test_generated_ones_follow_the_real_ones() -> None:
    real = Pictures(greys([-1, 1]), np.array([1, 0]), ["real a", "real b"], ["one", "two"])
    both = real.beside(Pictures(greys([0.0]), np.array([0]), ["generated"], ["three"]))
    assert both.classes.tolist() == [1, 0, 2] and both.class_names == ["real a", "real b", "generated"]
    assert both.names == ["one", "two", "three"]
    thumbnails = both.thumbnails(4)
    assert thumbnails.shape == (3, 4, 4) and thumbnails.dtype == np.uint8
    assert thumbnails[:, 0, 0].tolist() == [0, 255, 128]


def test_points_are_the_encoders_output() -> None:
    network = DenseAutoencoder(8, 2, [4, 4])
    pictures = Pictures(torch.randn(40, 1, 8, 8), np.zeros(40, np.int64), ["x"], ["n"] * 40)
    with torch.no_grad():
        expected = network.encode(pictures.images).numpy()
    np.testing.assert_allclose(embedded(network, pictures), expected, atol=1e-6)
    assert network.training


@pytest.mark.parametrize(
    ("entry", "values", "setting"),
    [("window_hu", ([-1000, 400], [-160, 240]), "window"), ("fit", ("pad", "crop"), "fit")],
)
def test_models_of_other_grey_levels_do_not_share_a_map(entry: str, values: tuple, setting: str) -> None:
    check_scale({entry: values[0]}, {entry: values[0]})
    check_scale({entry: values[0]}, {})
    with pytest.raises(UserError, match=f"train both with the same --{setting}"):
        check_scale({entry: values[0]}, {entry: values[1]})


def test_more_classes_than_the_legend_holds_are_refused(halves: Path) -> None:
    data = ImageData(halves, 16, "all", flips=False)
    data.class_names = [f"class{number}" for number in range(6)]
    with pytest.raises(UserError, match="6 classes are more than the map's 5"):
        real_pictures(data, 10)
