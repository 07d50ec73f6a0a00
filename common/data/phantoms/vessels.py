"""Branching vessels of the lungs: grown in mm from a seed, then painted on any grid.

The trees are balanced spanning trees (Cuntz et al. 2010, PLoS Comput Biol 6:e1000877): each new end joins
where the wire and the way to the root are short. Radii follow Murray's law, parent^3 = sum of children^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.anatomy import Array, Grid

BALANCE = 0.8
"""How much a short way to the root counts against short wire."""
END_RADIUS = 0.6
"""Radius of the thinnest branch, mm."""
MAX_RADIUS = 5.5


@dataclass(frozen=True)
class Branches:
    """Straight pieces: starts and ends ``(N, 3)`` in mm, their radii ``(N,)`` in mm."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    radii: NDArray[np.float64]


def grow_tree(root: NDArray[np.float64], targets: NDArray[np.float64]) -> Branches:
    """Joins ``targets`` ``(N, 3)`` in mm to a tree that starts at ``root`` ``(3,)``."""
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    nodes = np.concatenate([root[None], targets[order]])  # (N + 1, 3)
    parents = np.zeros(len(nodes), np.int64)
    way = np.zeros(len(nodes))
    for new in range(1, len(nodes)):
        gaps = np.linalg.norm(nodes[:new] - nodes[new], axis=1)
        parents[new] = np.argmin(gaps + BALANCE * way[:new])
        way[new] = way[parents[new]] + gaps[parents[new]]
    radii = _murray(parents)
    return Branches(nodes[parents[1:]], nodes[1:], radii[1:])


def _murray(parents: NDArray[np.int64]) -> NDArray[np.float64]:
    cubes = np.zeros(len(parents))
    for node in range(len(parents) - 1, 0, -1):  # children come after their parents
        cubes[node] = max(cubes[node], END_RADIUS**3)
        cubes[parents[node]] += cubes[node]
    return np.minimum(np.cbrt(cubes), MAX_RADIUS)


def paint_branches(grid: Grid, branches: Branches, slab: float) -> Array:
    """Share 0 to 1 of every voxel that lies in a branch; ``branches`` in grid mm.

    ``slab`` is the thickness of a slice in mm: what lies within it adds to the slice, as in a scanner.
    """
    result = np.zeros(grid.shape, np.float32, order="F")
    axes = [grid.axis(number) for number in range(3)]
    width = float(min(grid.spacing[:2]))
    for start, end, radius in zip(branches.starts, branches.ends, branches.radii, strict=True):
        box = _box(axes, start, end, radius + width, radius + width + slab / 2)
        if box is None:
            continue
        share = _piece(
            [axis[part] for axis, part in zip(axes, box, strict=True)], start, end, radius, width, slab
        )
        result[box] = np.maximum(result[box], share)
    return result


def _box(
    axes: list[Array], start: NDArray[np.float64], end: NDArray[np.float64], margin: float, margin_z: float
) -> tuple[slice, slice, slice] | None:
    """The part of the grid that a piece can touch; None where it lies between slices or outside."""
    parts = []
    for axis, a, b, space in zip(axes, start, end, (margin, margin, margin_z), strict=True):
        first, last = np.searchsorted(axis, [min(a, b) - space, max(a, b) + space])
        if first == last:
            return None
        parts.append(slice(int(first), int(last)))
    return parts[0], parts[1], parts[2]


def _piece(
    axes: list[Array],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    radius: float,
    width: float,
    slab: float,
) -> Array:
    """Coverage of one piece in its box. Thin pieces are widened to a voxel and thinned in density."""
    ab = (end - start).astype(np.float32)
    px, py, pz = np.ix_(*(axis - np.float32(a) for axis, a in zip(axes, start, strict=True)))
    along = np.clip((px * ab[0] + py * ab[1] + pz * ab[2]) / max(float(ab @ ab), 1e-6), 0, 1)
    gap_z = np.maximum(np.abs(pz - along * ab[2]) - np.float32(slab / 2), 0)
    gap = np.sqrt((px - along * ab[0]) ** 2 + (py - along * ab[1]) ** 2 + gap_z**2)
    strength = min(1.0, 2 * radius / width) ** 1.2 if slab > 0 else 1.0
    shown = max(radius, 0.5 * width)
    return np.asarray(np.clip(0.5 + (shown - gap) / width, 0, 1) * strength, dtype=np.float32)
