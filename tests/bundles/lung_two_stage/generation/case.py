"""The smallest run of the generation's trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bundles.case import BundleCase, two_masks
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
WITHOUT_CAPSULES = ("gan", "dcgan", "wgan", "biggan", "relativistic")


def train(overlays: Sequence[str], work: Path, folder: Path, log: Path, **more: Any) -> Run:
    """A tiny training with overlays on ``train_nodules.yaml``."""
    capsules = {} if set(overlays) & set(WITHOUT_CAPSULES) else CAPSULES
    settings = {**TINY, **capsules, "work_dir": work, "output_dir": folder, **more}
    return forked(CASE.arguments("training", ["train_nodules", *overlays], **settings), log)
