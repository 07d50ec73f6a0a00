"""Generators with random weights and what a training would write beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bundles.lung_two_stage.generation.networks import ConvolutionalGenerator
from common.files import write_json
from tests.bundles.lung_two_stage.generation.made_banks import SIZE

TARGET = "bundles.lung_two_stage.generation.networks.ConvolutionalGenerator"
LATENT = 6


def make_model(folder: Path, layer: str = "nodules", classes: int = 2, seed: int = 0, **facts: Any) -> Path:
    """``model.pt`` and ``model.json``: images that differ; nodules have a round alpha of 5 pixels across."""
    channels = 2 if layer == "nodules" else 1
    arguments = {
        **{"image_size": SIZE, "latent": LATENT, "width": 4},
        **{"channels": channels, "classes": classes, "upsample": "resize"},
    }
    torch.manual_seed(seed)
    network = ConvolutionalGenerator(**arguments)
    network.layers[-1].weight.data[:1] *= 8
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "model.pt")
    info = {
        **{"layer": layer, "window_hu": [-1000.0, 400.0], "nominal_hu": False, "image_size": SIZE},
        **{"spacing_mm": 2.5, "latent": LATENT, "turned": layer == "nodules", "classes_by": "category"},
        "classes": ["part_solid", "solid"][:classes],
        "network": {"target": TARGET, "arguments": arguments},
    }
    write_json(folder / "model.json", {**info, **facts})
    return folder / "model.pt"
