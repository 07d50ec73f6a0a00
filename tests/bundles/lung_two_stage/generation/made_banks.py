"""Small made banks: discs of three looks in noisy lung, and slices with two lungs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord
from tests.bundles.lung_two_stage.made_work import slice_bank

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
