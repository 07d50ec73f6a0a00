"""Whether an image and its mask lie in the same place: one check for all readers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError

# Voxels: what tools lose when they write affines in single precision or with few decimals.
SAME_PLACE_VOXELS = 0.01
AXES = ("rows", "columns", "slices")


class Grid(NamedTuple):
    """The voxels of a file, in display order (rows to posterior, columns to the left, slices upwards).

    Attributes:
        file: named in messages.
        shape: rows, columns, slices.
        affine: 4 x 4, (row, column, slice) to world mm (RAS).
        file_affine: 4 x 4, the file's own voxels to world mm.
    """

    file: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    file_affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm between rows, columns, slices."""
        rows, columns, slices = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(rows), float(columns), float(slices)

    def __str__(self) -> str:
        size = " x ".join(str(extent) for extent in self.shape)
        steps = " x ".join(f"{step:.4g}" for step in self.spacing)
        corner = ", ".join(f"{value:.4g}" for value in self.affine[:3, 3])
        return f"{size} voxels of {steps} mm from ({corner})"


def greatest_offset(image: Grid, mask: Grid) -> float:
    """How far corner voxels of the mask lie from the image's of the same index, at most, in voxels.

    Example:
        >>> affine = np.diag([2.0, 2.0, 4.0, 1.0])
        >>> moved = affine.copy()
        >>> moved[2, 3] = 1.0
        >>> one, other = (Grid(Path("a"), (8, 8, 3), matrix, matrix) for matrix in (affine, moved))
        >>> greatest_offset(one, other)
        0.25
    """
    corners = np.array(
        [(*corner, 1) for corner in itertools.product(*((0, side - 1) for side in mask.shape))]
    )
    offsets = corners @ (np.linalg.inv(image.affine) @ mask.affine).T - corners
    return float(np.abs(offsets[:, :3]).max())


def check_beside_picture(volume: Grid, picture: Path) -> None:
    """Refuses a volume beside a picture, unless its one slice is stored as a picture is.

    A picture has no place; it is upright as it is stored. A volume of one slice whose rows run to posterior
    and whose columns run to the left in the file too, as ITK writes it from a picture, fits.

    Raises:
        UserError: names both files and the geometry of the volume.

    Example:
        >>> itk = np.diag([-0.5, -0.5, 1.0, 1.0])  # columns to the left, rows to posterior
        >>> display = itk[:, [1, 0, 2, 3]]  # the same, for (row, column, slice)
        >>> check_beside_picture(Grid(Path("mask.nii.gz"), (8, 8, 1), display, itk), Path("image.png"))
    """
    to_file = np.linalg.inv(volume.file_affine) @ volume.affine
    if volume.shape[2] == 1 and np.allclose(to_file[:2, :2], [[0, 1], [1, 0]]):
        return
    raise UserError(
        f"{volume.file}: is a volume ({volume}) beside the picture {picture}, which has no place, so one may "
        "be mirrored or turned; save image and mask in one format, with their geometry"
    )


def lies_in_same_place(image: Grid, mask: Grid) -> bool:
    """Returns whether two files have their voxels in the same places, to a hundredth of a voxel."""
    return image.shape == mask.shape and greatest_offset(image, mask) <= SAME_PLACE_VOXELS


def check_same_place(image: Grid, mask: Grid) -> None:
    """Refuses two files whose voxels are not in the same places, to a hundredth of a voxel.

    The order and direction of their axes in the files may differ.

    Raises:
        UserError: names both files and both geometries, and an identity affine as what it is.
    """
    if image.shape != mask.shape:
        different = [
            f"{there} {name} instead of {here}"
            for name, here, there in zip(AXES, image.shape, mask.shape, strict=True)
            if here != there
        ]
        raise UserError(
            f"{mask.file}: does not fit {image.file}: {', '.join(different)} "
            f"(it has {mask}, the image {image}); resample one to the other"
        )
    offset = greatest_offset(image, mask)
    if offset <= SAME_PLACE_VOXELS:
        return
    for grid, other in ((mask, image), (image, mask)):
        if np.allclose(np.abs(grid.file_affine), np.eye(4)):
            raise UserError(
                f"{grid.file}: its affine is the identity, so its place was lost when it was saved "
                f"({other.file} has {other}); if its voxels are stored in the same order, copy that file's "
                "affine, else save it again with its geometry"
            )
    raise UserError(
        f"{mask.file}: lies elsewhere than {image.file}, by up to {offset:.3g} voxels: it has {mask}, "
        f"the image {image}; resample one to the other, or copy the header if only that is wrong"
    )
