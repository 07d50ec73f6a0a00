"""Which images are on the map, and where."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from bundles.dcgan_covid.autoencoder import DenseAutoencoder
from bundles.dcgan_covid.latent_map import (
    CONFIG,
    Pictures,
    check_scale,
    encode,
    generated_pictures,
    plane_atlas,
    plane_latents,
    real_pictures,
    three_seeds,
    write_projector,
)
from common.errors import UserError
from common.files import read_json, write_json
from common.inference.sampling import draw_images, latents
from tests.bundles.dcgan_covid.case import CASE
from tests.bundles.dcgan_covid.made import CLASSES, LATENT, SIZE, make_generator, make_model
from tests.bundles.runs import Run, fingerprints, forked
from tests.common.data.made_sets import image_data


def greys(levels: list[float], side: int = 8) -> torch.Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 1, side, side)


def test_real_images_of_all_splits_come_with_class_file_and_split(halves: Path) -> None:
    data = image_data(halves, 16, classes="all")
    pictures = real_pictures(data, most=1000)
    assert len(pictures) == 64 and pictures.class_names == ["real covid", "real noncovid"]
    assert np.bincount(pictures.classes).tolist() == [32, 32]
    first = data.train.samples[0]
    assert pictures.names[0] == f"{first.image.name} (train)"
    assert {name.split("(")[1] for name in pictures.names} == {"train)", "val)", "test)"}
    np.testing.assert_array_equal(pictures.images[:1], data.train.images[:1])


def test_too_many_real_images_are_thinned_evenly(halves: Path) -> None:
    data = image_data(halves, 16, classes="all")
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
    both = real.concat(Pictures(greys([0.0]), np.array([0]), ["generated"], ["three"]))
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
    np.testing.assert_allclose(encode(network, pictures), expected, atol=1e-6)
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
    data = image_data(halves, 16, classes="all")
    data.class_names = [f"class{number}" for number in range(6)]
    with pytest.raises(UserError, match="6 classes are more than the map's 5"):
        real_pictures(data, 10)


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


Trained = tuple[Path, Run]


@pytest.fixture(scope="session")
def models(autoencoder: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with both models."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(autoencoder[0] / "models", folder / "models")
    make_model(folder / "models")
    return folder


def run(log: Path, run_id: str = "explorer", **settings: Any) -> Run:
    return forked(CASE.arguments(run_id, "explore", **settings), log / "log")


def description(page: Path) -> dict[str, Any]:
    """What the page's data say of themselves."""
    found = re.search(r'<script type="application/json" id="description">(.*?)</script>', page.read_text())
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_holds_both_kinds_and_the_plane(models: Path, halves: Path, tmp_path: Path) -> None:
    given = {"dataset_dir": halves, "output_dir": models, "output": tmp_path / "page.html"}
    done = run(tmp_path, **given, num_samples=5, plane_seeds="4,8,15")
    assert done.code == 0, done.err
    said = description(tmp_path / "page.html")
    assert said["classNames"] == ["real covid", "real noncovid", "generated"]
    assert np.bincount(said["classes"]).tolist() == [32, 32, 5]
    assert (said["dimensions"], said["imageSize"]) == (3, 16)
    assert (said["atlas"]["rows"], said["atlas"]["columns"]) == (24, 24)
    assert said["atlas"]["corners"][:3] == ["seed 4", "seed 8", "seed 15"]
    assert len(said["layers"]) == 5
    metrics = read_json(models / "models" / "autoencoder.json")["metrics"]
    assert f"on unseen images: {metrics['mse']:.3f}" in said["notes"]
    assert "32 real covid, 32 real noncovid, 5 generated" in done.out
    assert "64 real images are in it as thumbnails" in done.out


def test_no_real_image_is_shown_where_none_is_wanted(models: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    given = {"dataset_dir": tmp_path / "missing", "output_dir": models, "output": page, "atlas": 0}
    done = run(tmp_path, **given, num_real=0)
    assert done.code == 0, done.err
    said = description(page)
    assert said["classNames"] == ["generated"] and said["atlas"] is None
    assert len(said["names"]) == 200 and "real images are in it" not in done.out


def test_the_projector_gets_the_same_points(models: Path, halves: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(models, folder)
    given = {"dataset_dir": halves, "output_dir": folder, "num_samples": 6, "num_real": 10}
    done = run(tmp_path, "embedding", **given)
    assert done.code == 0, done.err
    projector = folder / "logs" / "projector"
    assert (projector / CONFIG).is_file()
    (labels,) = projector.rglob("metadata.tsv")
    kinds = [line.split("\t")[0] for line in labels.read_text().splitlines()[1:]]
    assert (kinds.count("generated"), len(kinds)) == (6, 16)
    (tensors,) = projector.rglob("tensors.tsv")
    points = np.loadtxt(tensors)
    assert points.shape == (16, 3) and points.std(axis=0).min() > 0


def test_a_missing_model_and_one_of_another_size_are_refused(
    models: Path, halves: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    given: dict[str, Any] = {"dataset_dir": halves, "output_dir": models, "output": page}
    error = run(tmp_path, **{**given, "output_dir": tmp_path / "bare"}).error
    assert "autoencoder.pt: no trained model yet" in error and "train_autoencoder.yaml" in error
    shutil.copytree(models / "models", tmp_path / "other")
    other = tmp_path / "other" / "autoencoder.pt"
    info = read_json(other.with_suffix(".json"))
    info["network"]["arguments"]["latent"] = 2
    write_json(other.with_suffix(".json"), info)
    error = run(tmp_path, **given, autoencoder=other).error
    assert "its latent size is 3, the network's 2" in error
    assert not page.exists()


COUNT, SIDE = 7, 8


def made() -> tuple[np.ndarray, Pictures]:
    """Seven points; each image has a grey of its own."""
    points = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    images = torch.linspace(-1, 1, COUNT)[:, None, None, None].expand(-1, 1, 16, 16)
    names = [f"image {number}" for number in range(COUNT - 1)] + ["a\ttab"]
    kinds = np.array([0, 0, 1, 1, 2, 2, 2])
    return points, Pictures(images, kinds, ["real covid", "real noncovid", "generated"], names)


def test_coordinates_labels_and_sprite_agree(tmp_path: Path) -> None:
    points, pictures = made()
    folder = write_projector(tmp_path / "logs" / "projector", points, pictures, SIDE)
    config = text_format.Parse((folder / CONFIG).read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    np.testing.assert_allclose(np.loadtxt(folder / embedding.tensor_path, delimiter="\t"), points, rtol=1e-6)
    rows = [line.split("\t") for line in (folder / embedding.metadata_path).read_text().splitlines()]
    assert rows[0] == ["class", "name"] and len(rows) == COUNT + 1
    assert rows[1] == ["real covid", "image 0"] and rows[-1] == ["generated", "a tab"]
    assert list(embedding.sprite.single_image_dim) == [SIDE, SIDE]
    sprite = np.asarray(Image.open(folder / embedding.sprite.image_path))
    assert sprite.shape == (3 * SIDE, 3 * SIDE, 3)  # a square of 3 x 3 for seven
    tiles = sprite[..., 0].reshape(3, SIDE, 3, SIDE).transpose(0, 2, 1, 3).reshape(9, SIDE, SIDE)
    assert (tiles == tiles[:, :1, :1]).all()
    assert np.abs(tiles[:COUNT, 0, 0] - np.linspace(0, 255, COUNT)).max() <= 1


def test_tensorboard_takes_the_folder_for_a_run(tmp_path: Path) -> None:
    folder = write_projector(tmp_path / "projector", *made(), SIDE)
    assert EventAccumulator(str(folder)).Reload().Tags()["tensors"] == ["latent/text_summary"]


def test_an_earlier_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    points, pictures = made()
    write_projector(tmp_path / "projector", points, pictures, SIDE)
    write_projector(tmp_path / "projector", points + 1, pictures, SIDE)
    assert len(list((tmp_path / "projector").glob("events.*"))) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"projector"}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    before = fingerprints(mine)
    with pytest.raises(UserError, match="exists already"):
        write_projector(mine, points, pictures, SIDE)
    assert fingerprints(mine) == before
