"""Banks of plain nodules and lungs at 256 x 256 for the benchmarks of composites."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.composition.compose import ComposeSettings

SIZE, SPACING_MM = 256, 1.4
CROP, CROP_MM = 44, 0.75


@cache
def place() -> Path:
    """A folder for all that the benchmarks write, removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="composites-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def healthy_slices(count: int) -> SliceBank:
    """Two elliptic lungs, 90 mm wide and 150 mm high, a little elsewhere in every slice; noise of 20 HU."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    hu, lung = np.empty((count, SIZE, SIZE), np.int16), np.zeros((count, SIZE, SIZE), np.uint8)
    for number in range(count):
        shift = random.uniform(-0.02, 0.02)
        for side, middle in ((1, 0.29), (2, 0.71)):
            lung[number][((x - middle - shift) / 0.165) ** 2 + ((y - 0.5 - shift) / 0.28) ** 2 < 1] = side
        noise = random.normal(0, 20, (SIZE, SIZE))
        hu[number] = np.where(lung[number] > 0, -850, 40) + noise
    records = [SliceRecord(f"slice_{number}", "", SPACING_MM) for number in range(count)]
    return SliceBank(hu, lung, np.zeros_like(lung), records)


def nodules(count: int) -> NoduleBank:
    """Round nodules, 7 to 22 mm wide, solid and not, in crops of 33 mm."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:CROP, :CROP] - CROP // 2
    radii = random.uniform(3.5, 11, count) / CROP_MM
    alpha = np.clip(radii[:, None, None] - np.hypot(y, x) + 0.5, 0, 1)
    density = random.uniform(-600, 50, (count, 1, 1))
    hu = -850 + alpha * (density + 850) + random.normal(0, 20, alpha.shape)
    kinds = ("part_solid", "solid")
    records = [
        NoduleRecord(f"nodule_{number}", "", kinds[number % 2], 2 * radius * CROP_MM, CROP_MM)
        for number, radius in enumerate(radii)
    ]
    return NoduleBank(hu.astype(np.int16), np.rint(alpha * 255).astype(np.uint8), records)


@cache
def small_banks() -> Path:
    """100 nodules and 20 slices on disk."""
    folder = place() / "banks"
    nodules(100).save(folder / "nodules")
    healthy_slices(20).save(folder / "healthy_slices")
    return folder


def small_set(name: str, **more: Any) -> ComposeSettings:
    """A set of composites of them, in a folder of its own."""
    banks = small_banks()
    output = str(place() / name)
    return ComposeSettings(str(banks / "nodules"), str(banks / "healthy_slices"), output, groups=1000, **more)
