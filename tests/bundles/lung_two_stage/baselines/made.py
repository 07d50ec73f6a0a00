"""Made pictures and scans with nodules at known places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.nodules import NoduleScan, nodules_in_mask

Ball = tuple[float, float, float, float]
"""Slice, row and column of the centre and the radius, in voxels."""
LUNG, TISSUE = -850, 30


def squares(corners: Sequence[Sequence[tuple[int, int, int]]], size: int = 32) -> tuple[Tensor, Tensor]:
    """Pictures (B, 1, S, S) of -1 with squares of 1 at (row, column, side), and their masks."""
    masks = torch.zeros(len(corners), 1, size, size)
    for mask, result in zip(masks, corners, strict=True):
        for row, column, side in result:
            mask[0, row : row + side, column : column + side] = 1
    return 2 * masks - 1, masks


def drawn_squares(count: int, seed: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """Noisy pictures with one square of 6 to 10 pixels each."""
    random = np.random.default_rng(seed)
    sides = random.integers(6, 11, count)
    corners = [[(*random.integers(0, size - side, 2).tolist(), int(side))] for side in sides]
    images, masks = squares(corners, size)
    noise = random.normal(0, 0.2, images.shape)
    return images + torch.from_numpy(noise.astype(np.float32)), masks


def scan_of(
    balls: Sequence[Ball],
    shape: tuple[int, int, int] = (1, 64, 64),
    spacing: tuple[float, float, float] = (2.0, 1.0, 1.0),
    name: str = "made",
    seed: int = 0,
) -> NoduleScan:
    """A piece of lung with balls (voxels' spacing counts: they are round in mm of the plane)."""
    z, y, x = np.mgrid[tuple(slice(0, n) for n in shape)]
    mask = np.zeros(shape, np.uint8)
    for ball in balls:
        far = ((z - ball[0]) * spacing[0] / spacing[1]) ** 2 + (y - ball[1]) ** 2 + (x - ball[2]) ** 2
        mask[far <= ball[3] ** 2] = 1
    noise = np.random.default_rng(seed).normal(0, 20, shape)
    hu = (np.where(mask > 0, TISSUE, LUNG) + noise).astype(np.int16)
    return NoduleScan(hu, mask, spacing, name, name, nodules_in_mask(mask, spacing))


def write_crops(folder: Path, patients: int = 6, empty: bool = False) -> Path:
    """Pictures of 64 x 64 with a disc each, and a second disc that is no nodule."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(patients):
        scan = scan_of([(0, 20 + number, 24, 5), (0, 46, 44, 4)], seed=number)
        mask = scan.mask[0] * (np.arange(64) < 34) * (not empty)
        name = f"LIDC-IDRI-{number:04d}_nodule-0.png"
        Image.fromarray(((scan.hu[0] + 1000) / 1400 * 255).clip(0, 255).astype(np.uint8)).save(
            folder / "images" / name
        )
        Image.fromarray((mask * 255).astype(np.uint8)).save(folder / "masks" / name)
    return folder
