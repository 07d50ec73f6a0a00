"""The grid, pose and parameters of a phantom patient; shapes as signed distances; smooth random fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.rng import make_rng

Array = NDArray[np.float32]
Points = tuple[Array, Array, Array]  # x (to the patient's left), y (to the back), z (to the head), in mm
Vector = tuple[float, float, float]

FIELD_OF_VIEW = (360.0, 360.0, 240.0)
"""Extent of every phantom in mm, whatever its shape: left-right, front-back, foot-head."""


@dataclass(frozen=True)
class Grid:
    """Voxels: axis 0 runs to the patient's left, axis 1 to the back, axis 2 to the head (NIfTI ``LPS``)."""

    shape: tuple[int, int, int]

    @property
    def spacing(self) -> Vector:
        """Voxel size in mm."""
        x, y, z = (extent / n for extent, n in zip(FIELD_OF_VIEW, self.shape, strict=True))
        return x, y, z

    def axis(self, number: int) -> Array:
        """Voxel centres along one axis in mm; x and y are 0 in the middle, z is 0 at the lower end."""
        n, step = self.shape[number], self.spacing[number]
        start = 0.0 if number == 2 else -FIELD_OF_VIEW[number] / 2
        return (start + (np.arange(n) + 0.5) * step).astype(np.float32)

    def affine(self, offset: Vector) -> NDArray[np.float64]:
        """Voxel index to RAS world in mm. ``offset``: where the grid's (0, 0, 0) mm lies, in LPS world mm."""
        matrix = np.diag([-self.spacing[0], -self.spacing[1], self.spacing[2], 1.0])
        first = [float(self.axis(number)[0]) + offset[number] for number in range(3)]
        matrix[:3, 3] = (-first[0], -first[1], first[2])
        return matrix


@dataclass(frozen=True)
class Pose:
    """Size relative to the standard body, rotation about x, y, z (degrees) and shift (mm)."""

    scale: Vector
    turn: Vector
    shift: Vector

    @property
    def matrix(self) -> NDArray[np.float64]:
        """Patient mm to grid mm, without the shift."""
        ax, ay, az = np.deg2rad(self.turn)
        about_x = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
        about_y = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
        about_z = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
        return np.asarray(about_z @ about_y @ about_x @ np.diag(self.scale))

    def to_grid(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Converts patient mm (N, 3) to grid mm (N, 3); the body rotates about the middle of the chest."""
        middle = np.array([0.0, 0.0, FIELD_OF_VIEW[2] / 2])
        return (points - middle) @ self.matrix.T + middle + np.array(self.shift)


def patient_points(grid: Grid, pose: Pose) -> Points:
    """Returns the patient coordinates in mm of every voxel: three float32 arrays of the grid's shape."""
    middle = np.array([0.0, 0.0, FIELD_OF_VIEW[2] / 2])
    origin = middle + np.array(pose.shift)
    steps = [grid.axis(n) - np.float32(origin[n]) for n in range(3)]
    gx, gy, gz = steps[0][None, None, :], steps[1][None, :, None], steps[2][:, None, None]
    # Fortran order, as in NIfTI files: a slice is contiguous, so work on few slices is fast.
    x, y, z = (
        (row[0] * gx + row[1] * gy + row[2] * gz + np.float32(m)).T
        for row, m in zip(np.linalg.inv(pose.matrix).astype(np.float32), middle, strict=True)
    )
    return x, y, z


@dataclass(frozen=True)
class Anatomy:
    """The parameters of one patient: lengths in mm, densities in HU, positions in the standard body."""

    pose: Pose
    offset: Vector
    """Position of the grid's zero in the scanner, LPS world mm."""
    fat: float
    """Thickness of the fat under the skin."""
    diaphragm: float
    """Height of the right dome above the lower end of the volume."""
    heart_size: float
    heart_turn: float
    """Rotation of the heart's long axis about the head-foot axis, degrees."""
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
    """Draws the parameters of a patient; they depend on ``seed`` and ``patient`` alone."""
    random = make_rng(seed, "phantom", patient, "anatomy")

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


NOISE_GAIN = 3.0
"""Scales a cubic B-spline of standard normal coefficients to about unit variance."""

REACH = 36.0
"""Distances to tubes are cut off at this many mm; nothing needs larger ones."""


def ellipsoid(
    points: Points, centre: Vector, radii: Vector, axes: NDArray[np.float64] | None = None
) -> Array:
    """Returns the signed distance (first order) to an ellipsoid; rows of ``axes`` (3, 3) are its axes."""
    moved: Sequence[Array] = [p - np.float32(c) for p, c in zip(points, centre, strict=True)]
    if axes is not None:
        moved = [sum_of_products(moved, row) for row in axes.astype(np.float32)]
    near = sum(((m / np.float32(r)) ** 2 for m, r in zip(moved, radii, strict=True)), np.float32(1e-6))
    far = sum(((m / np.float32(r * r)) ** 2 for m, r in zip(moved, radii, strict=True)), np.float32(1e-9))
    level = np.sqrt(near)
    return np.asarray(level * (level - 1) / np.sqrt(far), dtype=np.float32)


def sum_of_products(parts: Sequence[Array], weights: NDArray[np.float32]) -> Array:
    """Returns ``w0 * p0 + w1 * p1 + w2 * p2``."""
    return np.asarray(parts[0] * weights[0] + parts[1] * weights[1] + parts[2] * weights[2])


def capsule(points: Points, start: Vector, end: Vector, radii: tuple[float, float]) -> Array:
    """Returns the signed distance to a straight tube with ``radii`` in mm at its start and its end."""
    a, ab = np.asarray(start, np.float32), np.subtract(end, start).astype(np.float32)
    px, py, pz = points[0] - a[0], points[1] - a[1], points[2] - a[2]
    length = max(float(ab @ ab), 1e-6)
    along = np.clip((px * ab[0] + py * ab[1] + pz * ab[2]) / np.float32(length), 0, 1)
    gap = (px - along * ab[0]) ** 2 + (py - along * ab[1]) ** 2 + (pz - along * ab[2]) ** 2
    return np.asarray(np.sqrt(gap) - (radii[0] + along * np.float32(radii[1] - radii[0])), dtype=np.float32)


def tube(points: Points, course: Sequence[Vector], radii: Sequence[float]) -> Array:
    """Returns the signed distance to a tube through the points of ``course`` with a radius in mm at each.

    Distances are cut off at `REACH`, so that only the slices near a piece are computed.
    """
    result = np.full_like(points[0], REACH)
    for a, b, ra, rb in zip(course[:-1], course[1:], radii[:-1], radii[1:], strict=True):
        part = _slices_near(points[2], min(a[2], b[2]) - REACH, max(a[2], b[2]) + REACH)
        x, y, z = (p[..., part] for p in points)
        result[..., part] = np.minimum(result[..., part], capsule((x, y, z), a, b, (ra, rb)))
    return result


def _slices_near(z: Array, low: float, high: float) -> slice:
    """Returns the slices of a volume between ``low`` and ``high`` mm; all of a list of points."""
    if z.ndim < 3:
        return slice(None)
    corners = z[[0, 0, -1, -1], [0, -1, 0, -1], :]  # (4, slices): the extremes, as z is linear in the index
    near = np.flatnonzero((corners.max(axis=0) > low) & (corners.min(axis=0) < high))
    return slice(int(near[0]), int(near[-1]) + 1) if len(near) else slice(0, 0)


def union(*shapes: Array) -> Array:
    """Returns the union of the shapes."""
    result = shapes[0]
    for shape in shapes[1:]:
        result = np.minimum(result, shape)
    return result


def blend(first: Array, second: Array, width: float) -> Array:
    """Returns the union with a fillet of about ``width`` mm (polynomial smooth minimum)."""
    overlap = np.maximum(np.float32(width) - np.abs(first - second), 0) / np.float32(width)
    return np.asarray(np.minimum(first, second) - overlap * overlap * np.float32(width / 4), dtype=np.float32)


def coverage(shape: Array, width: float) -> Array:
    """Returns the share of a voxel inside ``shape``, 0 to 1, with a ramp of ``width`` mm at the edge."""
    return np.clip(np.float32(0.5) - shape / np.float32(width), 0, 1)


def profile(z: Array, heights: Sequence[float], values: Sequence[float]) -> Array:
    """Interpolates a quantity linearly between the given heights; ``z`` in mm."""
    return np.interp(z, heights, values).astype(np.float32)


@dataclass(frozen=True)
class SmoothNoise:
    """A smooth random field of about unit variance with features about ``scale`` mm wide.

    Cubic B-splines of standard normal coefficients on a lattice fixed in mm: the field is the same at any
    voxel size.
    """

    lattice: Array
    scale: float

    def on_grid(self, grid: Grid) -> Array:
        """Evaluates the field at every voxel."""
        field = self.lattice
        for number in range(3):
            weights = _spline_weights(grid.axis(number), number, self.scale, field.shape[number])
            field = np.moveaxis(np.tensordot(weights, field, axes=(1, number)), 0, number)
        return np.asfortranarray(field) * np.float32(NOISE_GAIN)

    def at_points(self, points: NDArray[np.float64]) -> Array:
        """Evaluates the field at points (N, 3) in grid mm."""
        start = np.array([_start(number) for number in range(3)])
        places = (points - start) / self.scale + 1.5
        field = ndimage.map_coordinates(self.lattice, places.T, order=3, prefilter=False, mode="nearest")
        return np.asarray(field * np.float32(NOISE_GAIN), dtype=np.float32)


def draw_noise(random: np.random.Generator, scale: float) -> SmoothNoise:
    """Draws a smooth field with features of about ``scale`` mm."""
    counts = [int(np.ceil(extent / scale)) + 4 for extent in FIELD_OF_VIEW]
    return SmoothNoise(random.standard_normal(counts, dtype=np.float32), scale)


def smooth_noise(random: np.random.Generator, grid: Grid, scale: float) -> Array:
    """Draws a smooth field and evaluates it at every voxel of ``grid``."""
    return draw_noise(random, scale).on_grid(grid)


def _start(number: int) -> float:
    return 0.0 if number == 2 else -FIELD_OF_VIEW[number] / 2


def _spline_weights(axis: Array, number: int, scale: float, count: int) -> Array:
    place = (axis - _start(number)) / scale + 1.5
    distance = np.abs(place[:, None] - np.arange(count)[None, :])
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, inner, outer).astype(np.float32)
