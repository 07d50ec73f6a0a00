"""The smallest trainings of the generation, small made banks, and generators with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord
from bundles.lung_two_stage.generation.networks import ConvolutionalGenerator
from common.files import write_json
from tests.bundles.case import BundleCase, two_masks
from tests.bundles.lung_two_stage.made_work import slice_bank
from tests.bundles.runs import Run, forked

TINY = {
    "image_size": 16,
    "batch_size": 4,
    "max_epochs": 1,
    "latent": 8,
    "network_def#width": 4,
    "discriminator_def#width": 4,
    "val_interval": 1,
    "image_interval": 1,
    "monitor_interval": 0,
    "amp": False,
}
CAPSULES = {
    "discriminator_def#maps": 2,
    "discriminator_def#size": 4,
    "discriminator_def#capsules": 2,
    "discriminator_def#capsule_size": 4,
}
CASE = BundleCase(
    "lung_two_stage", TINY, {}, lambda folder: None, inference=lambda _data: {}, network_input=two_masks
)
WITHOUT_CAPSULES = ("gan", "dcgan", "wgan", "biggan", "relativistic", "skip_excitation")


def train(overlays: Sequence[str], work: Path, folder: Path, log: Path, **more: Any) -> Run:
    """A tiny training with overlays on ``train_nodules.yaml``."""
    capsules = {} if set(overlays) & set(WITHOUT_CAPSULES) else CAPSULES
    settings = {**TINY, **capsules, "work_dir": work, "output_dir": folder, **more}
    return forked(CASE.arguments("training", ["train_nodules", *overlays], **settings), log)


SIZE = 16
PATIENTS = [f"p{number:02d}" for number in range(10)]
LEVELS = {"part_solid": -350, "solid": 30}


def made_nodules(
    categories: bool = True, each: int = 4, seed: int = 0, patients: Sequence[str] = PATIENTS
) -> NoduleBank:
    """``each`` nodules of every patient, 2 to 5 pixels in radius, the categories in turn."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE].astype(float) - (SIZE - 1) / 2
    hu, alpha, records = [], [], []
    for number in range(each * len(patients)):
        category = list(LEVELS)[number % 2]
        radius = random.uniform(2, 5)
        share = np.clip(radius + 0.5 - np.hypot(y - random.uniform(-1, 1), x), 0, 1)
        lung = random.normal(-850, 40, (SIZE, SIZE))
        hu.append((1 - share) * lung + share * LEVELS[category])
        alpha.append(share * 255)
        patient = patients[number // each]
        name = f"{patient}_{number}"
        records.append(NoduleRecord(name, patient, category if categories else "", 2 * radius * 2.5, 2.5))
    return NoduleBank(
        np.array(hu).round().astype(np.int16), np.array(alpha).round().astype(np.uint8), records
    )


def made_banks(folder: Path) -> Path:
    """The ``extraction`` of a ``work`` folder: banks of nodules and of healthy slices."""
    made_nodules().save(folder / "extraction" / "nodules")
    slice_bank(PATIENTS, 3, [0]).save(folder / "extraction" / "healthy_slices")
    return folder


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
