"""A generator with random weights and what training would write beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bundles.dcgan_covid.networks import DcganGenerator
from common.files import write_json

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
