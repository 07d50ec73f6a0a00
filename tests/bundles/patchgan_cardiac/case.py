"""The smallest run of this bundle, and made hearts for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common.data.labels import STRUCTURES
from tests.bundles.case import ACCURACIES, PAIR_AUGMENTATION, BundleCase, write_patients

SIDE, DEPTH = 32, 4
AFFINE = np.diag([-6.0, -6.0, 8.0, 1.0])  # LPS voxel axes: rows and columns lie as in the picture
TINY = {
    "image_size": 32,
    "batch_size": 2,
    "max_epochs": 1,
    "network_def#levels": 5,
    "network_def#width": 8,
    "discriminator_def#width": 4,
    "val_interval": 2,
    "image_interval": 1,
    "image_iterations": "[]",
}
SHORT = {"image_size": 64, "network_def#levels": 6, "batch_size": 4, "max_epochs": 9, "val_interval": 9}
# HU of the background and of the structures in their order.
LEVELS = np.array([-50, 350, 300, 380, 320, 100, 400, 280])
# Centres of the structures and their radii, pixels.
PLACES = np.array(
    [(12, 18, 3), (20, 18, 3), (11, 11, 3), (20, 11, 3), (16, 15, 7), (15, 5, 2.5), (22, 5, 2.5)]
)


def make_heart(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A heart of discs in HU, the muscle behind the others, int16 and uint8 (x, y, z)."""
    random = np.random.default_rng(number)
    x, y, _ = np.mgrid[:SIDE, :SIDE, :DEPTH].astype(float)
    label = np.zeros((SIDE, SIDE, DEPTH), np.uint8)
    shift = random.uniform(-2, 2, 2)
    muscle = STRUCTURES.index("Myo")
    for place in sorted(range(len(STRUCTURES)), key=lambda place: place != muscle):
        column, row, radius = PLACES[place]
        disc = (x - column - shift[0]) ** 2 + (y - row - shift[1]) ** 2 < (
            radius * random.uniform(0.9, 1.1)
        ) ** 2
        label[disc] = place + 1
    image = LEVELS[label] + random.normal(0, 20, label.shape)
    return image.astype(np.int16), label


def make_hearts(folder: Path) -> None:
    """``images/`` and ``labels/`` of 8 made patients: 4 slices of 32 x 32 pixels, all structures in each."""
    write_patients(folder, ("images", "labels"), make_heart, AFFINE)


CASE = BundleCase(
    "patchgan_cardiac",
    TINY,
    SHORT,
    make_hearts,
    inference=lambda data: {"input_dir": data / "labels"},
    beside=lambda data: {"store_dir": data.with_name(f"{data.name}_slices")},
    files=frozenset({"logs/progression.png"}),
    augment={"augmentation#transforms": PAIR_AUGMENTATION, "coarse_labels": 0.5},
    undrawn={
        "network_def#noise": 0,
        "network_def#decoder_noise": False,
        "discriminator_augment": None,
        "adversarial": "least_squares",
        "perceptual": 0.0,  # its deviations within windows turn rounding into thousandths
    },
    with_shipped={"label_map": "default"},  # they know ACDC's values
    placeholders=lambda data: {"heart.nii.gz": str(data / "labels" / "patient_000.nii.gz")},
    metrics=frozenset({"fid_gridvgg", "structure_faithfulness"}),
    logged=ACCURACIES | {"G_l1", "G_perceptual"},
)
arguments = CASE.arguments
