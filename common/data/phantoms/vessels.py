"""The lungs' branching vessels: grown in mm from drawn end points, then painted on any grid.

The trees are balanced spanning trees (Cuntz et al. 2010, PLoS Comput Biol 6:e1000877): each end point joins
where the new piece and the way to the root are short. Radii follow Murray's law,
parent^3 = sum of children^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.anatomy import Array, Grid

BALANCE = 0.8
"""Weight of the way to the root against the length of the new piece."""
END_RADIUS = 0.6
"""Radius of the thinnest branch, mm."""
MAX_RADIUS = 5.5
CHUNK = 2**18
"""Voxels that are computed at once."""


@dataclass(frozen=True)
class Branches:
    """Straight pieces of vessel: starts and ends (N, 3) in mm, their radii (N,) in mm."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    radii: NDArray[np.float64]


def grow_tree(root: NDArray[np.float64], targets: NDArray[np.float64]) -> Branches:
    """Joins ``targets`` (N, 3) in mm to a tree that starts at ``root`` (3,)."""
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    nodes = np.concatenate([root[None], targets[order]])  # (N + 1, 3)
    gaps = np.linalg.norm(nodes[:, None] - nodes, axis=2)  # (N + 1, N + 1)
    parents = np.zeros(len(nodes), np.int64)
    way = np.zeros(len(nodes))
    for new in range(1, len(nodes)):
        parents[new] = np.argmin(gaps[new, :new] + BALANCE * way[:new])
        way[new] = way[parents[new]] + gaps[new, parents[new]]
    radii = _murray_radii(parents)
    return Branches(nodes[parents[1:]], nodes[1:], radii[1:])


def _murray_radii(parents: NDArray[np.int64]) -> NDArray[np.float64]:
    cubes = np.zeros(len(parents))
    for node in range(len(parents) - 1, 0, -1):  # children come after their parents
        cubes[node] = max(cubes[node], END_RADIUS**3)
        cubes[parents[node]] += cubes[node]
    return np.minimum(np.cbrt(cubes), MAX_RADIUS)


def paint_branches(grid: Grid, branches: Branches, slab: float) -> Array:
    """Returns the share 0 to 1 of every voxel that lies in a vessel; ``branches`` in grid mm.

    Args:
        slab: thickness of a slice in mm: what lies within it adds to the slice, as in a scanner.
    """
    axes = [grid.axis(number) for number in range(3)]
    width = float(min(grid.spacing[:2]))
    margins = branches.radii[:, None] + width + np.array([0.0, 0.0, slab / 2])  # (N, 3)
    low, high = np.minimum(branches.starts, branches.ends), np.maximum(branches.starts, branches.ends)
    bounds = zip(axes, (low - margins).T, (high + margins).T, strict=True)
    boxes = np.array([[np.searchsorted(axis, a), np.searchsorted(axis, b)] for axis, a, b in bounds])
    first, extents = boxes[:, 0].T, (boxes[:, 1] - boxes[:, 0]).T  # (N, 3) each
    result = np.zeros(grid.shape, np.float32, order="F")
    flat = result.reshape(-1, order="F")  # a view
    for pieces in _chunks(extents.prod(axis=1), branches.radii < 0.5 * width):
        voxels, owner = _voxels_of(first[pieces], extents[pieces])
        share = _coverage(axes, branches, pieces[owner], voxels, width, slab)
        np.maximum.at(flat, np.ravel_multi_index(tuple(voxels.T), grid.shape, order="F"), share)
    return result


def _chunks(counts: NDArray[np.int64], thin: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Splits the pieces with voxels into parts of about `CHUNK` voxels, each all thin or all not."""
    groups = [np.flatnonzero(kind & (counts > 0)) for kind in (thin, ~thin)]
    return [
        part
        for group in groups
        for part in np.split(group, np.flatnonzero(np.diff(np.cumsum(counts[group]) // CHUNK)) + 1)
        if len(part)
    ]


def _voxels_of(
    first: NDArray[np.int64], extents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns all voxels (V, 3) of boxes with first voxels and extents (N, 3), and the box (V,) of each."""
    counts = extents.prod(axis=1)
    owner = np.repeat(np.arange(len(counts)), counts)
    rest = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)  # place within the box
    sides = extents[owner]
    steps = np.stack(
        [rest % sides[:, 0], rest // sides[:, 0] % sides[:, 1], rest // (sides[:, 0] * sides[:, 1])]
    )
    return first[owner] + steps.T, owner


def _coverage(
    axes: list[Array],
    branches: Branches,
    pieces: NDArray[np.int64],
    voxels: NDArray[np.int64],
    width: float,
    slab: float,
) -> Array:
    """Returns the share (V,) of each voxel (V, 3) that its piece (V,) covers.

    A piece thinner than a voxel is painted one voxel wide with a lower density.
    """
    starts, radii = branches.starts, branches.radii
    ab = (branches.ends - starts).astype(np.float32)
    squared = np.array([max(float(vector @ vector), 1e-6) for vector in ab], np.float32)[pieces]
    ax, ay, az = ab[pieces].T
    px, py, pz = (
        axis[index] - start
        for axis, index, start in zip(axes, voxels.T, starts.astype(np.float32)[pieces].T, strict=True)
    )
    along = np.clip((px * ax + py * ay + pz * az) / squared, 0, 1)
    gap_z = np.maximum(np.abs(pz - along * az) - np.float32(slab / 2), 0)
    gap = np.sqrt((px - along * ax) ** 2 + (py - along * ay) ** 2 + gap_z**2)
    strength = np.array([min(1.0, 2 * radius / width) ** 1.2 if slab > 0 else 1.0 for radius in radii])
    shown: float | NDArray[np.float64] = 0.5 * width if radii[pieces[0]] < 0.5 * width else radii[pieces]
    return np.asarray(np.clip(0.5 + (shown - gap) / width, 0, 1) * strength[pieces], dtype=np.float32)
