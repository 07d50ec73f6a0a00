"""What differs between patients: all parameters of one phantom, drawn before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.data.phantoms.grid import Pose, Vector
from common.random import generator


@dataclass(frozen=True)
class Anatomy:
    """One patient. Lengths in mm, densities in HU; positions in the standard body before ``pose``."""

    pose: Pose
    offset: Vector
    """Where the scanner's table put the volume: LPS world mm of the grid's zero."""
    fat: float
    """Thickness of the fat under the skin."""
    diaphragm: float
    """Height of the right dome above the lower end of the volume."""
    heart_size: float
    heart_turn: float
    """Turn of the heart's long axis about the head-foot axis, degrees."""
    heart_shift: Vector
    lung_hu: float
    lung_gradient: float
    """Rise of the lung's density from front to back (gravity), HU."""
    blood_left_hu: float
    """Contrast-enhanced blood in the left heart and the aorta."""
    blood_right_hu: float
    bone_hu: float
    lesion_load: float
    """0 (none) to 1 (severe)."""
    consolidation: float
    """0 (ground glass only) to 1 (mostly consolidation)."""
    nodules: int
    noise_hu: float
    blur: float
    """Standard deviation of the scanner's point spread in the slice, mm."""


def draw_anatomy(seed: int, patient: int) -> Anatomy:
    """Draws the patient's parameters from (``seed``, ``patient``)."""
    random = generator(seed, "phantom", patient, "anatomy")

    def between(low: float, high: float) -> float:
        return float(random.uniform(low, high))

    size = between(0.93, 1.03)
    return Anatomy(
        pose=Pose(
            scale=(size * between(0.95, 1.05), size * between(0.96, 1.14), between(0.93, 1.05)),
            turn=(between(-4, 4), between(-3, 3), float(np.clip(random.normal(0, 4), -9, 9))),
            shift=(between(-6, 6), between(-10, 10), between(-8, 8)),
        ),
        offset=(between(-15, 15), between(-190, -150), between(-420, -250)),
        fat=between(6, 24),
        diaphragm=between(76, 98),
        heart_size=between(0.92, 1.12),
        heart_turn=between(-12, 12),
        heart_shift=(between(-5, 5), between(-3, 3), between(-5, 5)),
        lung_hu=between(-885, -825),
        lung_gradient=between(30, 95),
        blood_left_hu=between(260, 420),
        blood_right_hu=between(180, 400),
        bone_hu=between(520, 800),
        lesion_load=0.0 if random.random() < 0.08 else between(0.08, 1.0),
        consolidation=between(0.0, 1.0),
        nodules=int(random.integers(1, 6)),
        noise_hu=between(10, 24),
        blur=between(0.5, 0.9),
    )
