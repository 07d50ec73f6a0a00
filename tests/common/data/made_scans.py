"""Small made scans with nodules, in the layouts that real ones come in."""

from __future__ import annotations

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
from PIL import Image

HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def write_mhd(path: Path, voxels: np.ndarray, flipped: bool = False) -> None:
    """A MetaImage of int16 (Z, Y, X), 2 x 1.5 x 1 mm, at (10, 20, 30) mm LPS; ``flipped`` lies prone."""
    image = itk.image_from_array(np.ascontiguousarray(voxels))
    image.SetSpacing([1, 1.5, 2])
    image.SetOrigin([10, 20, 30])
    if flipped:
        image.SetDirection(itk.matrix_from_array(np.diag([-1.0, -1.0, 1.0])))
    itk.imwrite(image, str(path))


def write_luna(folder: Path, lines: str, series: str = "1.2", flipped: bool = False) -> Path:
    """A folder with one LUNA16 scan of 8 x 10 x 12 voxels and these lines of annotations."""
    voxels = np.full((8, 10, 12), -800, np.int16)
    voxels[3, 4, 5] = 40
    folder.mkdir(parents=True, exist_ok=True)
    write_mhd(folder / f"{series}.mhd", voxels, flipped)
    (folder / "annotations.csv").write_text(HEADER + lines)
    return folder


def write_picture(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """An 8-bit picture and its mask {0, 255}."""
    for part, pixels in (("images", image), ("masks", mask * 255)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"{name}.png")


def write_volume(folder: Path, name: str, hu: np.ndarray, mask: np.ndarray, masks: str = "masks") -> None:
    """A NIfTI volume (X, Y, Z) to the left, back and head, 1 x 1 x 2 mm, and its mask."""
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    for part, voxels in (("images", hu.astype(np.int16)), (masks, mask.astype(np.uint8))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), folder / part / f"{name}.nii.gz")
