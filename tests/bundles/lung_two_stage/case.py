"""The smallest run of this bundle's generator of nodules, and a made bank for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.bundles.case import BundleCase
from tests.bundles.lung_two_stage.generation.made import CAPSULES, made_nodules
from tests.bundles.lung_two_stage.generation.made import TINY as SMALLER

LATENT = 8
TINY = {**SMALLER, **CAPSULES, "image_size": 32, "batch_size": 2, "latent": LATENT, "val_interval": 2}
PATIENTS = [f"p{number}" for number in range(6)]  # 4 to learn from, 1 to choose, 1 to test
OTHERS = [f"q{number}" for number in range(4)]


def make_bank(folder: Path) -> None:
    """Five nodules of each patient, without categories: 20 to learn from."""
    made_nodules(categories=False, each=5, patients=PATIENTS).save(folder)


def held_out(data: Path) -> dict[str, Any]:
    """A bank of other patients: five test nodules are too few to evaluate on."""
    folder = data.with_name("heldout")
    if not folder.exists():
        made_nodules(categories=False, seed=1, patients=OTHERS).save(folder)
    return {"heldout_dir": folder}


def make_input() -> torch.Tensor:
    """Two latents."""
    return torch.randn(2, LATENT)


CASE = BundleCase(
    "lung_two_stage",
    TINY,
    {},
    make_bank,
    inference=lambda _data: {"num_samples": 3},
    train="train_nodules",
    evaluate="evaluate_nodules",
    networks="generation.networks",
    built_with=lambda data: {"dataset_dir": data, "batch_size": 2},
    evaluating=held_out,
    undrawn={"gradient_penalty": 0.0, "adversarial": "bce"},
    network_input=make_input,
    metrics=frozenset({"fid_gridvgg", "alpha_fid_gridvgg"}),
    logged=frozenset({"D_penalty"}),
    rows=5,
    augment={"discriminator_augment": "translation,cutout"},
    no_augment={"discriminator_augment": "rotate"},
)
