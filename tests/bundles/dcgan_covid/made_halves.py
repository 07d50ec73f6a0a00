"""Images that two values tell nearly all of, for the autoencoder: half dark, half light, by an angle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.bundles.dcgan_covid.case import CASE

SIDE, PAPERS, EACH = 24, 8, 4
NOISE = 70  # with less the images would pass for duplicates of each other
CLASSES = ("covid", "noncovid")
TINY = {
    "image_size": 16,
    "batch_size": 8,
    "max_epochs": 30,
    "learning_rate": 0.003,
    "val_interval": 5,
    "image_interval": 10,
    "decay_from": 1.0,
    "network_def#widths": "[32,32,16,8]",
}


def make_halves(folder: Path) -> None:
    """``covid/`` and ``noncovid/`` with four images of each of eight papers."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    for kind, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for paper in range(PAPERS):
            random = np.random.default_rng([kind, paper])
            for number in range(EACH):
                angle = random.uniform(-np.pi, np.pi)
                image = 127 + 90 * np.sign(np.cos(angle) * x + np.sin(angle) * y)
                image = image + random.normal(0, NOISE, image.shape)
                pixels = image.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{name}{paper}-p{number}-1.png")


def training(data: Path, folder: Path, **more: Any) -> list[str]:
    """The command line of a training of the autoencoder."""
    given = {**TINY, "dataset_dir": data, "output_dir": folder, **more}
    return CASE.arguments("training", "train_autoencoder", **given)
