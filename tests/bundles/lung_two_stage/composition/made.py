"""Small banks: round lungs, round nodules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.composition.compose import ComposeSettings

SIZE, CROP = 32, 9
LUNG_HU, BODY_HU = -850, 40


def disc(side: int, middle: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.hypot(rows - middle[0], columns - middle[1]) <= radius


def healthy_slices(count: int = 3, spacing_mm: float = 1.0) -> SliceBank:
    """Two lungs of radius 7 and 6 pixels in each slice, noise of 15 HU."""
    random = np.random.default_rng(1)
    lung = np.zeros((count, SIZE, SIZE), np.uint8)
    lung[:, disc(SIZE, (15, 8), 7)], lung[:, disc(SIZE, (16, 23), 6)] = 1, 2
    hu = np.where(lung > 0, LUNG_HU, BODY_HU) + random.normal(0, 15, lung.shape)
    records = [SliceRecord(f"slice_{n}", f"patient_{n}", spacing_mm) for n in range(count)]
    return SliceBank(hu.astype(np.int16), lung, np.zeros_like(lung), records)


def nodules(count: int = 5, spacing_mm: float = 0.8) -> NoduleBank:
    """Discs of 1 to 2 pixels' radius in crops of 9, by turns part-solid and solid."""
    random = np.random.default_rng(2)
    masks = np.stack([disc(CROP, (4, 4), 1 + 0.2 * n) for n in range(count)])
    hu = np.where(masks, 20, LUNG_HU + 30) + random.normal(0, 10, masks.shape)
    kinds = ("part_solid", "solid")
    records = [
        NoduleRecord(f"nodule_{n}", f"patient_{90 + n}", kinds[n % 2], 2.0, spacing_mm) for n in range(count)
    ]
    return NoduleBank(hu.astype(np.int16), masks.astype(np.uint8) * 255, records)


def settings(folder: Path, **more: Any) -> ComposeSettings:
    """A set of 60 composites in 4 shards; banks in ``folder``, shards in ``folder/out``."""
    if not (folder / "healthy_slices").exists():
        nodules().save(folder / "nodules")
        healthy_slices().save(folder / "healthy_slices")
    folders = {
        name: str(folder / name.removesuffix("_dir")) for name in ("nodules_dir", "healthy_slices_dir")
    }
    asked = {**folders, "output_dir": str(folder / "out"), "count": 60, "groups": 40, "per_shard": 17, **more}
    return ComposeSettings(**asked)
