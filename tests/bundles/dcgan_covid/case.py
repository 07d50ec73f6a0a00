"""The smallest run of this bundle, and made images for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.bundles.case import IMAGE_AUGMENTATION, BundleCase

PAPERS, SLICES, HEIGHT, WIDTH = 8, 4, 28, 32
LATENT = 8
TINY = {
    "image_size": 32,
    "batch_size": 2,
    "max_epochs": 1,
    "latent": LATENT,
    "flips": False,
    "network_def#width": 4,
    "discriminator_def#width": 4,
    "n_critic": 1,
    "val_interval": 2,
    "image_interval": 1,
}
SHORT = {
    "image_size": 64,
    "network_def#width": 16,
    "discriminator_def#width": 8,
    "max_epochs": 24,
    "val_interval": 8,
}


def make_slice(random: np.random.Generator) -> np.ndarray:
    """A body with two lungs of other sizes in each, and noise: uint8 (H, W)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    image = np.zeros((HEIGHT, WIDTH))
    image[(x - 15.5) ** 2 / 14**2 + (y - 13.5) ** 2 / 11**2 < 1] = 180
    for centre in (9.5, 21.5):
        wide, high = random.uniform(2, 6), random.uniform(3, 9)
        image[(x - centre) ** 2 / wide**2 + (y - 13.5) ** 2 / high**2 < 1] = 30
    image += random.normal(0, 60, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def make_images(folder: Path, name: str = "covid", papers: int = PAPERS, first: int = 0) -> None:
    """A class folder of made slices, four of each paper; the papers' numbers begin at ``first``."""
    (folder / name).mkdir(parents=True)
    for paper in range(first, first + papers):
        random = np.random.default_rng([paper, len(name)])
        for number in range(SLICES):
            Image.fromarray(make_slice(random)).save(folder / name / f"{name}-paper{paper}-p{number}-1.png")


def held_out(data: Path) -> dict[str, Any]:
    """A folder of other papers: four test images are too few to evaluate on."""
    folder = data.with_name("heldout")
    if not folder.exists():
        make_images(folder, papers=3, first=PAPERS)
    return {"heldout_dir": folder}


def make_input() -> torch.Tensor:
    """Two latents."""
    return torch.randn(2, LATENT)


CASE = BundleCase(
    "dcgan_covid",
    TINY,
    SHORT,
    make_images,
    inference=lambda _data: {"num_samples": 3},
    built_with=lambda _data: {"batch_size": 4},
    evaluating=held_out,
    undrawn={
        "gradient_penalty": 0.0,
        "adversarial": "bce",
        "discriminator_augment": "[]",
        "network_def#grain": False,
    },
    network_input=make_input,
    logged=frozenset(
        {"D_gradient_norm", "G_gradient_norm", "D_penalty", "D_accuracy_pairs", "D_accuracy_pairs_ema"}
        | {"vanishing_iterations", "black_share", "black_epochs"}
    ),
    rows=5,
    networks="common.networks.skip_excitation",
    augment={"augmentation#transforms": IMAGE_AUGMENTATION, "discriminator_augment": "all"},
)
