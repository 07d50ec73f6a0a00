"""The phantoms on which all stages of this bundle work if no data are given."""

from __future__ import annotations

import os
from pathlib import Path

from common.data.phantoms.writing import ensure_phantoms

PATIENTS = 16
SHAPE = (128, 128, 32)
"""Voxels of 2.8 x 2.8 x 7.5 mm: nodules are 3 to 9 pixels wide."""


def chest_scans(folder: str | os.PathLike[str], patients: int = PATIENTS, seed: int = 0) -> Path:
    """Makes chest phantoms with nodules and otherwise healthy lungs, if the folder has none; returns it."""
    return ensure_phantoms(folder, patients, seed, SHAPE, with_lesions=False)
