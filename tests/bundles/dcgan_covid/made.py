"""A generator with random weights and what training writes beside it; images for the autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bundles.dcgan_covid.networks import DcganGenerator
from common.files import write_json
from tests.bundles.dcgan_covid.case import CASE

TARGET = "bundles.dcgan_covid.networks.DcganGenerator"
CLASSES = ["none", "mild", "severe"]
SIZE, LATENT = 32, 12


def make_generator(classes: int = 0, latent: int = LATENT) -> tuple[DcganGenerator, dict[str, Any]]:
    """A small network whose images differ, in evaluation mode, and its arguments."""
    arguments = {"image_size": SIZE, "latent": latent, "width": 4, "classes": classes}
    torch.manual_seed(0)
    network = DcganGenerator(**arguments)
    network.layers[-1].weight.data *= 3000  # untrained it would be gray all over
    return network.eval(), arguments


def make_model(folder: Path, classes: int = 0, latent: int = LATENT, **facts: Any) -> Path:
    """``model.pt`` and ``model.json`` in ``folder``."""
    network, arguments = make_generator(classes, latent)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "model.pt")
    known = {
        "window_hu": [-1000.0, 400.0],
        "nominal_hu": False,
        "image_size": SIZE,
        "fit": "pad",
        "classes": CLASSES[:classes] or ["covid"],
        "network": {"target": TARGET, "arguments": arguments},
    }
    write_json(folder / "model.json", {**known, **facts})
    return folder / "model.pt"


SIDE, PAPERS, EACH = 24, 8, 4
NOISE = 70  # with less the images would pass for duplicates of each other
HALVES = ("covid", "noncovid")
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
    for kind, name in enumerate(HALVES):
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
