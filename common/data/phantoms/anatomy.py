"""The grid, the pose and the drawn parameters of one phantom patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
