"""Where in the lungs things may lie: points drawn in mm, the same at any voxel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.grid import FIELD_OF_VIEW, Grid, Points, Pose
from common.data.phantoms.thorax import Thorax

LOW, HIGH = np.array([-140.0, -100.0, 0.0]), np.array([140.0, 110.0, FIELD_OF_VIEW[2]])


@dataclass(frozen=True)
class Places:
    """Points inside the lungs with what is known of each; all arrays have N rows."""

    patient: NDArray[np.float64]  # (N, 3) mm in the standard body
    depth: NDArray[np.float64]  # (N,) mm to the lung's border
    wall: NDArray[np.float64]  # (N,) mm to the chest wall or the diaphragm


def draw_candidates(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Points ``(count, 3)`` in patient mm, even in a box around the lungs."""
    return random.uniform(LOW, HIGH, size=(count, 3))


def keep_inside(candidates: NDArray[np.float64], thorax: Thorax) -> Places:
    """Keeps the candidates inside the lungs; ``thorax`` was built at the candidates, ``(N,)`` arrays."""
    inside = thorax.lung < 0
    wall = np.maximum(thorax.cavity, thorax.diaphragm)[inside]
    return Places(candidates[inside], -thorax.lung[inside].astype(float), -wall.astype(float))


def choose(random: np.random.Generator, weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Indices of ``count`` different places, drawn in proportion to ``weights`` (Efraimidis 2006)."""
    keys = np.log(random.random(len(weights))) / np.maximum(weights, 1e-12)
    return np.argsort(-keys)[:count].astype(np.int64)


def moved(points: Points, centre: NDArray[np.float64], box: tuple[slice, slice, slice]) -> Points:
    """Coordinates about ``centre`` within ``box``."""
    x, y, z = (p[box] - np.float32(c) for p, c in zip(points, centre, strict=True))
    return x, y, z


def box_around(
    grid: Grid, pose: Pose, centre: NDArray[np.float64], reach: float
) -> tuple[slice, slice, slice]:
    """The part of the grid within ``reach`` mm (along the axes) of a point in patient mm; may be empty."""
    middle = pose.to_grid(centre[None])[0]
    parts = []
    for number in range(3):
        first, last = np.searchsorted(grid.axis(number), [middle[number] - reach, middle[number] + reach])
        parts.append(slice(int(first), int(last)))
    return parts[0], parts[1], parts[2]
