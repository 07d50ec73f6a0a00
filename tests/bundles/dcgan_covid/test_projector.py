"""The files that TensorBoard's projector reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from bundles.dcgan_covid.embedding import Pictures
from bundles.dcgan_covid.projector import CONFIG, write_projector
from common.errors import UserError
from tests.bundles.runs import fingerprints

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
