"""The smallest run of this bundle, and made pairs for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.bundles.case import ACCURACIES, PAIR_AUGMENTATION, BundleCase, write_patients

SIDE, DEPTH = 32, 4
AFFINE = np.diag([-11.0, -11.0, 30.0, 1.0])  # LPS voxel axes: rows and columns lie as in the picture
TINY = {
    "image_size": 32,
    "batch_size": 2,
    "max_epochs": 1,
    "network_def#levels": 5,
    "network_def#ngf": 4,
    "discriminator_def#channels": 4,
    "discriminator_def#num_layers_d": 1,
    "val_interval": 2,
    "image_interval": 1,
}

# 220 iterations gave a FID of 1.8 where the mean image has 10.9 (one thread, under a minute).
SHORT = {"image_size": 64, "network_def#levels": 4, "batch_size": 4, "max_epochs": 6, "val_interval": 6}


def make_patient(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A body with lungs in HU and a lesion in one of them, int16 and uint8 (x, y, z)."""
    random = np.random.default_rng(number)
    x, y, z = np.mgrid[:SIDE, :SIDE, :DEPTH].astype(float)
    image = np.full((SIDE, SIDE, DEPTH), -1000.0)
    image[(x - 15.5) ** 2 / 14**2 + (y - 15.5) ** 2 / 11**2 < 1] = 40
    for centre in (9.5, 21.5):
        image[(x - centre) ** 2 / 4.5**2 + (y - 15.5) ** 2 / 8**2 < 1] = -850
    place = random.uniform([8, 11, 0], [11, 20, 3])
    place[0] += 12 * random.integers(2)
    lesion = (x - place[0]) ** 2 + (y - place[1]) ** 2 + 4 * (z - place[2]) ** 2 < random.uniform(6, 20)
    image[lesion] = -400
    image += random.normal(0, 20, image.shape)
    lesion[int(place[0]), int(place[1])] = True
    return image.astype(np.int16), lesion.astype(np.uint8)


def make_pairs(folder: Path) -> None:
    """``images/`` and ``masks/`` of 8 made patients: 4 slices of 32 x 32 pixels, every one with a lesion."""
    write_patients(folder, ("images", "masks"), make_patient, AFFINE)


CASE = BundleCase(
    "pix2pix_covid",
    TINY,
    SHORT,
    make_pairs,
    inference=lambda data: {"input_dir": data / "masks"},
    augment={"augmentation#transforms": PAIR_AUGMENTATION},
    placeholders=lambda data: {"MASKS": str(data / "masks")},
    undrawn={
        "network_def#noise": 0,
        "network_def#decoder_noise": False,
        "discriminator_augment": None,
        "adversarial": "bce",
        "discriminator_def#scales": 1,
        "perceptual": 0.0,  # its deviations within windows turn rounding into thousandths
    },
    metrics=frozenset({"fid_gridvgg", "lesion_faithfulness"}),
    logged=ACCURACIES | {"G_l1", "G_perceptual", "G_diversity"},
)
arguments, BUNDLE, CONFIGS = CASE.arguments, CASE.root, CASE.configs
