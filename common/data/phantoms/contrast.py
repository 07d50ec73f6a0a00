"""What contrast agent does to densities: the same patient scanned with it, and without (native)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.data.phantoms.anatomy import Anatomy

BLOOD_HU = (36.0, 52.0)
"""Native blood, by its haematocrit."""


@dataclass(frozen=True)
class Enhancement:
    """Densities in HU of all that takes up contrast agent; everything else looks alike with and without."""

    left_blood: float
    """Left heart, aorta, neck arteries and pulmonary veins."""
    right_blood: float
    right_atrium: float
    """Mixes enhanced and plain blood."""
    great_veins: float
    lung_vessels: float
    """Thinner than a voxel or two: partial volume leaves less of the blood's density."""
    myocardium: float
    liver: float
    spleen: float


def enhanced(anatomy: Anatomy) -> Enhancement:
    """The patient's CT angiography."""
    left, right = anatomy.blood_left_hu, anatomy.blood_right_hu
    return Enhancement(
        left_blood=left,
        right_blood=right,
        right_atrium=0.9 * right,
        great_veins=0.85 * right,
        lung_vessels=40.0 + 0.35 * right,
        myocardium=95.0,
        liver=105.0,
        spleen=120.0,
    )


def native(random: np.random.Generator) -> Enhancement:
    """A scan without contrast agent: blood and muscle nearly alike, the wall brighter in anaemia."""
    blood = float(random.uniform(*BLOOD_HU))
    return Enhancement(
        left_blood=blood,
        right_blood=blood,
        right_atrium=blood,
        great_veins=blood,
        lung_vessels=blood,
        myocardium=float(random.uniform(44.0, 50.0)),
        liver=float(random.uniform(52.0, 64.0)),
        spleen=float(random.uniform(44.0, 52.0)),
    )
