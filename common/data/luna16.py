"""Annotations of LUNA16: reading, world mm to voxels, and spheres as masks."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.data.volume_io import Volume
from common.errors import UserError

ROUNDING = 1e-9
"""Relative tolerance: points on the sphere belong to it."""
COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
UNKNOWN_MM = 10.0
"""Diameter of an excluded finding that is -1 in the table, as in LUNA16's evaluation script."""


class WorldNodule(NamedTuple):
    """A nodule's centre in world mm (LPS, as ITK and LUNA16 count) and its diameter in mm."""

    x: float
    y: float
    z: float
    diameter_mm: float


def read_annotations(
    path: str | os.PathLike[str], excluded: bool = False
) -> dict[str, tuple[WorldNodule, ...]]:
    """Reads the nodules of each series from an ``annotations.csv``.

    Args:
        path: the table.
        excluded: whether it is ``annotations_excluded.csv`` (findings below 3 mm, of one or two readers, or
            no nodules); unknown diameters (-1) become `UNKNOWN_MM`.
    Raises:
        UserError: unreadable, a missing column, or a line without numbers or size.
    """
    found: dict[str, list[WorldNodule]] = defaultdict(list)
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: no column {missing[0]}; it needs {', '.join(COLUMNS)}")
            for row in table:
                found[row[COLUMNS[0]]].append(_nodule(row, f"{path}: line {table.line_num}", excluded))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore LUNA16's {Path(path).name}") from error
    return {series: tuple(nodules) for series, nodules in found.items()}


def voxels_of(
    nodules: Sequence[WorldNodule], volume: Volume, path: Path, table: str = "annotations.csv"
) -> NDArray[np.float64]:
    """Converts centres to voxels (N, 3), fractions of (slice, row, column) of the volume in display order.

    Args:
        nodules: in world mm.
        volume: the scan, with its affine.
        path, table: file of the scan and name of the table, for the message.
    Raises:
        UserError: a centre lies outside the scan.
    """
    world = np.array([(-nodule.x, -nodule.y, nodule.z, 1.0) for nodule in nodules]).reshape(-1, 4)  # RAS
    display = (world @ np.linalg.inv(volume.display_affine).T)[:, :3]  # row, column, slice
    voxels = display[:, [2, 0, 1]]
    shape = np.array(volume.array.shape)[[2, 0, 1]]
    outside = np.flatnonzero(((voxels < -0.5) | (voxels > shape - 0.5)).any(axis=1))
    if len(outside):
        nodule, voxel = nodules[outside[0]], np.rint(voxels[outside[0]]).astype(int)
        raise UserError(
            f"{path}: the annotation at ({nodule.x:g}, {nodule.y:g}, {nodule.z:g}) mm lies outside the scan "
            f"(slice, row, column {voxel.tolist()} of {shape.tolist()}); correct it in {table}"
        )
    return voxels


def paint_spheres(
    shape: Sequence[int],
    spacing: Sequence[float],
    centres: NDArray[np.float64],
    diameters_mm: Iterable[float],
) -> NDArray[np.uint8]:
    """Paints spheres: uint8 {0, 1} (Z, H, W).

    Args:
        shape, spacing: of the scan, (Z, H, W), mm.
        centres: (N, 3) voxels from `voxels_of`.
        diameters_mm: N; each sphere has at least the voxel at its centre.

    Example:
        >>> paint_spheres((1, 3, 3), (1.0, 1.0, 1.0), np.array([[0.0, 1.0, 1.0]]), [2.0])[0].tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    mask = np.zeros(tuple(shape), np.uint8)
    last = np.array(shape) - 1
    for centre, diameter in zip(centres, diameters_mm, strict=True):
        reach = diameter / 2 / np.asarray(spacing)
        first = np.clip(np.floor(centre - reach), 0, last).astype(int)
        stop = np.clip(np.ceil(centre + reach), 0, last).astype(int) + 1
        box = tuple(slice(a, b) for a, b in zip(first, stop, strict=True))
        steps = np.ogrid[box]
        distance = sum(
            ((step - c) * s) ** 2 for step, c, s in zip(steps, centre, spacing, strict=True)
        )  # mm squared
        mask[box][distance <= (diameter / 2) ** 2 * (1 + ROUNDING)] = 1
        mask[tuple(np.clip(np.rint(centre), 0, last).astype(int))] = 1
    return mask


def _nodule(row: dict[str, str], where: str, excluded: bool = False) -> WorldNodule:
    try:
        nodule = WorldNodule(*(float(row[name]) for name in COLUMNS[1:]))
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} holds no coordinates and diameter in mm; correct or remove it") from error
    if excluded and nodule.diameter_mm < 0:
        nodule = nodule._replace(diameter_mm=UNKNOWN_MM)
    if not np.isfinite(nodule).all() or nodule.diameter_mm <= 0:
        raise UserError(f"{where} has the diameter {nodule.diameter_mm:g} mm; correct or remove it")
    return nodule
